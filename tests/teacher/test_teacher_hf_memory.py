"""Causal LMs of other architectures: step by step they equal forward passes without memory, or are refused by name."""

import json

import pytest
import torch
from teacher_stand_in import CALLS
from transformers import AutoConfig, AutoModelForCausalLM

from kdjax.errors import InputError
from kdjax.sources import resolve
from kdjax.teacher import open_teacher
from kdjax.teacher.hf import HfWorker
from kdjax.teacher.hf_memory import Unsupported, check_memory
from kdjax.teacher.hf_worker import generate

PROMPTS = [list(range(10, 24)), list(range(40, 45))]
EOS = 3
ATTENTION = {"num_attention_heads": 4, "intermediate_size": 48}
DECODER = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
DECODER |= {"max_position_embeddings": 64, "is_decoder": True, "is_encoder_decoder": False}
EQUAL = {
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "falcon_mamba": {"state_size": 8},
    "llama": ATTENTION,
    "bloom": {"n_head": 4},
    "jamba": ATTENTION
    | {"num_key_value_heads": 2, "mamba_d_state": 8, "use_mamba_kernels": False, "num_experts": 2}
    | {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2},
}
REFUSED = {
    "rwkv": ({"attention_hidden_size": 32}, "RwkvForCausalLM gives other logits step by step"),
    "recurrent_gemma": (
        {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16} | ATTENTION,
        "RecurrentGemmaForCausalLM does not hand out",
    ),
    "bart": (DECODER, "BartForCausalLM gives other logits step by step"),
    "pegasus": (DECODER, "PegasusForCausalLM gives other logits step by step"),
    "xlstm": ({"num_heads": 4}, "xLSTMForCausalLM does not run step by step (ValueError"),
    "openai-gpt": ({"n_head": 4, "n_embd": 32, "n_layer": 2}, "OpenAIGPTLMHeadModel remembers nothing"),
    "xlnet": ({"d_model": 32, "n_head": 4, "n_layer": 2, "d_inner": 48}, "XLNetLMHeadModel remembers nothing"),
}


def make(kind, fields):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | fields)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)  # far from uniform, so that a greedy choice is no matter of rounding
    return model


@torch.no_grad()
def greedy(model, prompt, steps):
    """Tokens by one whole forward pass each: no memory that could be lost."""
    ids = list(prompt)
    while len(ids) < len(prompt) + steps and (len(ids) == len(prompt) or ids[-1] != EOS):
        ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", EQUAL)
def test_architectures_that_equal_forward_passes_without_memory(kind):
    model = make(kind, EQUAL[kind])
    check_memory(model, generate, PROMPTS)
    asked = {"max_new_tokens": 8, "temperature": 0.0, "seed": 0, "top_k_logprobs": 0}
    expected = [greedy(model, prompt, 8) for prompt in PROMPTS]
    together = generate(model, [asked | {"prompt_ids": prompt} for prompt in PROMPTS], [EOS])
    assert [reply["token_ids"] for reply in together] == expected


@pytest.mark.parametrize("kind", REFUSED)
def test_architectures_that_do_not_are_refused_by_name(kind):
    fields, words = REFUSED[kind]
    with pytest.raises(Unsupported) as refusal:
        check_memory(make(kind, fields), generate, PROMPTS)
    assert words in str(refusal.value)


def forgetful(model, requests, eos_ids):
    """As `generate`, but each token after the first is told the one before it alone."""
    replies = []
    for request in requests:
        ids, rows = request["prompt_ids"], []
        for _ in range(request["max_new_tokens"]):
            logits = model(torch.tensor([ids])).logits[0, -1].detach()
            rows.append(logits.log_softmax(-1).sort(descending=True))
            ids = [rows[-1].indices[0].item()]
        tops = {
            "top_ids": [row.indices.tolist() for row in rows],
            "top_logprobs": [row.values.tolist() for row in rows],
        }
        replies.append(tops | {"token_ids": [row.indices[0].item() for row in rows]})
    return replies


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_memory_that_is_lost_in_silence_is_found_in_every_dtype(dtype):
    model = make("llama", ATTENTION).to(dtype)
    check_memory(model, generate, PROMPTS)
    with pytest.raises(Unsupported, match="LlamaForCausalLM gives other logits"):
        check_memory(model, forgetful, PROMPTS)


def test_a_model_that_fails_is_refused_by_name_but_not_for_the_memory_of_its_device():
    model = make("llama", ATTENTION)

    def failing(error):
        def generate(*_):
            raise error

        return generate

    with pytest.raises(Unsupported, match=r"LlamaForCausalLM does not run step by step \(RuntimeError: sizes"):
        check_memory(model, failing(RuntimeError("sizes differ")), PROMPTS)
    with pytest.raises(torch.OutOfMemoryError):
        check_memory(model, failing(torch.OutOfMemoryError("full")), PROMPTS)


def test_the_process_refuses_such_a_model_in_one_sentence(tiny_folder, tiny_tokenizer, tmp_path):
    folder = tmp_path / "model"
    vocabulary = tiny_tokenizer.vocab_size
    make(
        "rwkv", {"attention_hidden_size": 32, "vocab_size": vocabulary, "eos_token_id": 1, "bos_token_id": 0}
    ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_folder / name).read_bytes())
    worker = HfWorker(resolve(str(folder)), tiny_tokenizer, "float32")
    with pytest.raises(InputError, match=r"teacher .*: RwkvForCausalLM gives .*Choose another model") as error:
        worker.start()
    assert "Traceback" not in str(error.value) and worker._process is None


def test_an_encoder_decoder_is_refused_before_it_is_loaded(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_encoder_decoder": True}))
    with (
        open_teacher("hf", str(folder), tmp_path / "cache") as teacher,
        pytest.raises(InputError, match="is_encoder_decoder.*decoder-only"),
    ):
        teacher.ask(CALLS[:1])
