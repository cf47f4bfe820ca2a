"""What a Hugging Face causal LM remembers between two steps: under which name, and whether our own loop uses it.

`generate` steps through a model that we did not write. Where its memory is handed over wrongly, nothing fails: the model
just forgets its prompt. So each model is tried once, against a forward pass that needs no memory.
"""

import inspect
from collections.abc import Callable, Sequence

import torch
import transformers

# The names of `forward`'s argument, and of the output that it takes up: transformers' newer name, and older ones.
MEMORIES = ("cache", "past_key_values", "cache_params", "state")
STEPS = 3  # tokens that the trial generates
# Distance of two rows of logits, relative to their spread. A model without its memory is off by about 1; rounding, and
# an expert chosen otherwise because of it, stay well below.
TOLERANCE = {torch.float32: 0.02, torch.bfloat16: 0.25, torch.float16: 0.25}


class Unsupported(Exception):
    """A model that cannot be run step by step here; says which and why."""


def memory_name(model: transformers.PreTrainedModel) -> str:
    """The name under which `model.forward` takes what it remembers. Raises Unsupported where it takes nothing."""
    accepted = inspect.signature(model.forward).parameters
    for name in MEMORIES:
        if name in accepted:
            return name
    raise Unsupported(f"{type(model).__name__} remembers nothing between two steps (none of {', '.join(MEMORIES)})")


def masks_prompt_only(model: transformers.PreTrainedModel) -> bool:
    """Whether the attention mask is for the prompt alone: without an attention layer nothing looks back at padding."""
    return set(getattr(model.config, "layer_types", None) or ()) == {"linear_attention"}


def check_memory(
    model: transformers.PreTrainedModel,
    generate: Callable[[transformers.PreTrainedModel, Sequence[dict], Sequence[int]], list[dict]],
    prompts: Sequence[Sequence[int]],
) -> None:
    """Raise Unsupported unless `generate` gives the logits of one forward pass without memory.

    `prompts` are token ids, of different lengths, so that the shorter ones are padded.
    """
    name = type(model).__name__
    try:
        vocabulary = model.get_output_embeddings().weight.shape[0]
        asked = {"max_new_tokens": STEPS, "temperature": 0.0, "seed": 0, "top_k_logprobs": vocabulary}
        replies = generate(model, [asked | {"prompt_ids": prompt} for prompt in prompts], [])
        worst = max(_distance(model, prompt, reply) for prompt, reply in zip(prompts, replies, strict=True))
    except torch.OutOfMemoryError:  # a RuntimeError that says nothing about the model
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise Unsupported(f"{name} does not run step by step ({type(error).__name__}: {error})") from error
    if not worst <= TOLERANCE[model.dtype]:
        raise Unsupported(
            f"{name} gives other logits step by step than in one pass (they differ by {worst:.2f} of their spread)"
        )


@torch.inference_mode()
def _distance(model: transformers.PreTrainedModel, prompt: Sequence[int], reply: dict) -> float:
    """The largest distance of a step's logits from those of one pass, relative to their spread."""
    ids = torch.tensor([[*prompt, *reply["token_ids"][:-1]]], device=model.device)
    whole = model(input_ids=ids).logits[0, len(prompt) - 1 :].double().cpu()
    stepped = torch.zeros_like(whole).scatter(
        1, torch.tensor(reply["top_ids"]), torch.tensor(reply["top_logprobs"], dtype=whole.dtype)
    )
    whole, stepped = (logits - logits.mean(-1, keepdim=True) for logits in (whole, stepped))
    return ((stepped - whole).norm(dim=-1) / whole.norm(dim=-1).clamp(min=1e-9)).max().item()
