"""The process that runs a Hugging Face causal LM: `python -m kdjax.teacher.hf_worker SETTINGS`.

It reads a JSON list of requests per line and writes a JSON list of replies per line; all else it prints goes to stderr.
"""

import inspect
import json
import sys
from collections.abc import Sequence

import torch
import transformers

from kdjax.child import Parent
from kdjax.teacher.hf_memory import Unsupported, check_memory, masks_prompt_only, memory_name


def main() -> None:
    """Load the model, try it, say so, and answer batches until stdin closes."""
    settings, parent = json.loads(sys.argv[1]), Parent()
    model = load_model(settings["folder"], settings["gguf_file"], settings["dtype"])
    try:
        check_memory(model, generate, settings["trial_prompts"])
    except Unsupported as reason:
        parent.send({"unsupported": str(reason)})
        return
    device = torch.cuda.get_device_name() if model.device.type == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    parent.send({"device": device, "versions": versions})
    for requests in parent:
        parent.send(generate(model, requests, settings["eos_ids"]))


def load_model(folder: str, gguf_file: str | None, dtype: str) -> transformers.PreTrainedModel:
    """A causal LM from local files, on the GPU if there is one, ready for inference. No code from the folder is run."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf_file, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()  # type: ignore[arg-type]  # to's decorator loses the self of the method


@torch.inference_mode()
def generate(model: transformers.PreTrainedModel, requests: Sequence[dict], eos_ids: Sequence[int]) -> list[dict]:
    """Continue a batch of prompts until each one has ended its turn or has its tokens.

    A request has `prompt_ids`, `max_new_tokens`, `temperature` (0: greedy), `seed` and `top_k_logprobs`; a reply has
    the columns of `Answer` that the model decides. Each step's logits [batch, vocab] are reduced at once, so what is
    kept does not grow with the vocabulary. The model's generation_config plays no part: temperature 0 is the plain
    argmax.

    Raises:
        Unsupported: the model's memory cannot be handed from step to step.
        FloatingPointError: the logits overflowed.
    """
    ids, mask = _left_pad([request["prompt_ids"] for request in requests], model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    accepted, memory, prompt_only = (
        inspect.signature(model.forward).parameters,
        memory_name(model),
        masks_prompt_only(model),
    )
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    randoms = [torch.Generator().manual_seed(request["seed"]) for request in requests]
    temperatures = torch.tensor([request["temperature"] for request in requests], device=model.device)
    lengths = torch.tensor([request["max_new_tokens"] for request in requests], device=model.device)
    eos, top_k = torch.tensor(eos_ids, device=model.device), max(request["top_k_logprobs"] for request in requests)
    remembered: object = None
    steps: list[list[torch.Tensor]] = []
    while True:
        placed = {"position_ids": positions} if "position_ids" in accepted else {}
        masked = {} if steps and prompt_only else {"attention_mask": mask}
        output = model(input_ids=ids, use_cache=True, **{memory: remembered}, **masked, **placed, **last_only)
        logits = output.logits[:, -1].float()
        logsumexp = logits.logsumexp(-1)
        if not logsumexp.isfinite().all():
            raise FloatingPointError(f"the logits overflowed in {model.dtype}; use bfloat16 or float32")
        tokens = _choose(logits, temperatures, torch.stack([torch.rand((), generator=random) for random in randoms]))
        targets = logits.gather(-1, tokens[:, None])[:, 0] - logsumexp
        top = logits.topk(top_k)
        steps.append(
            [column.cpu() for column in (tokens, targets, logsumexp, top.indices, top.values - logsumexp[:, None])]
        )
        ended = torch.isin(tokens, eos) & (len(steps) < lengths)
        lengths[ended] = len(steps)
        if (lengths <= len(steps)).all():
            break
        if memory not in output:
            raise Unsupported(f"{type(model).__name__} does not hand out what it remembers ({memory})")
        ids, remembered = tokens[:, None], output[memory]
        positions = (
            positions[:, -1:] + (lengths > len(steps))[:, None]
        )  # a finished row must not run out of its context
        mask = torch.cat([mask, mask.new_ones(len(requests), 1)], dim=1)
    columns = [torch.stack(column, dim=1) for column in zip(*steps, strict=True)]  # [batch, steps] or [batch, steps, k]
    rows = zip(requests, lengths.tolist(), zip(*columns, strict=True), strict=True)
    return [_reply(request, length, eos_ids, *row) for request, length, row in rows]


def _left_pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both int64 [batch, longest]."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _choose(logits: torch.Tensor, temperatures: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """A token per row: at temperature 0 the argmax, else the inverse cumulative distribution at the row's number.

    The numbers come from each request's own generator, so a sample does not depend on its companions in the batch.
    """
    greedy = logits.argmax(-1)
    if not temperatures.any():
        return greedy
    scaled = logits.double() / torch.where(temperatures > 0, temperatures, 1.0)[:, None]
    cumulative = scaled.softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniform.to(cumulative)[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return torch.where(temperatures > 0, drawn.clamp(max=logits.shape[-1] - 1), greedy)


def _reply(request, length, eos_ids, tokens, targets, logsumexp, top_ids, top_logprobs) -> dict:
    """One row of the batch, cut to its own length and its own number of alternatives."""
    k = request["top_k_logprobs"]
    return {
        "finish_reason": "stop" if tokens[length - 1] in eos_ids else "length",
        "token_ids": tokens[:length].tolist(),
        "target_logprobs": targets[:length].tolist(),
        "logsumexp": logsumexp[:length].tolist(),
        "top_ids": top_ids[:length, :k].tolist(),
        "top_logprobs": top_logprobs[:length, :k].tolist(),
    }


if __name__ == "__main__":
    main()
