import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from kdjax.teacher.hf_worker import _choose, generate

PROMPTS = [[3, 70, 71, 72, 1, 4], [3, 90], [3, 40, 41, 42, 43, 44, 45, 46, 47, 48, 1, 4], [9]]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, tiny_folder):
    """Rotary and absolute positions: left padding shifts the latter if positions are not given."""
    torch.set_num_threads(1)
    if request.param == "llama":
        return AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=261,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config).eval()


def ask(prompt, max_new_tokens=8, temperature=0.0, seed=0, top_k_logprobs=0):
    return {
        "prompt_ids": prompt,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "top_k_logprobs": top_k_logprobs,
    }


def test_greedy_answers_equal_those_of_transformers(model):
    plain = [one.tolist() for one in greedy(model, eos=[])]
    eos = [plain[0][3], plain[2][0]]  # so that some prompts stop early, one of them at once
    replies = generate(model, [ask(prompt) for prompt in PROMPTS], eos)
    assert [reply["token_ids"] for reply in replies] == [one.tolist() for one in greedy(model, eos)]
    assert [reply["finish_reason"] for reply in replies] == [
        "stop" if reply["token_ids"][-1] in eos else "length" for reply in replies
    ]
    assert len(replies[2]["token_ids"]) == 1 and {reply["finish_reason"] for reply in replies} >= {"stop"}


def greedy(model, eos):
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=eos or None,
            pad_token_id=0,
        )
        yield made[0, len(prompt) :]


def test_limits_and_alternatives_are_each_requests_own(model):
    requests = [ask(prompt, max_new_tokens=n, top_k_logprobs=n - 1) for n, prompt in enumerate(PROMPTS, start=1)]
    for n, reply in enumerate(generate(model, requests, [1]), start=1):
        assert len(reply["token_ids"]) <= n and reply["finish_reason"] == (
            "stop" if reply["token_ids"][-1] == 1 else "length"
        )
        columns = ("target_logprobs", "logsumexp", "top_ids", "top_logprobs")
        assert {len(reply[column]) for column in columns} == {len(reply["token_ids"])}
        assert {len(alternatives) for alternatives in reply["top_ids"] + reply["top_logprobs"]} == {n - 1}


def test_logprobs_equal_those_of_one_forward_pass(model):
    replies = generate(model, [ask(prompt, top_k_logprobs=3) for prompt in PROMPTS], [1])
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply["token_ids"]])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(reply["token_ids"])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(reply["target_logprobs"]), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.tensor(reply["logsumexp"]), logits.logsumexp(-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.tensor(reply["top_logprobs"]), logprobs.topk(3).values, atol=1e-4, rtol=1e-4)
        assert [ids[0] for ids in reply["top_ids"]] == reply["token_ids"]


def test_a_finished_row_does_not_run_out_of_its_context(model):
    full, short = ask([3] + [70] * 59, max_new_tokens=4), ask([3, 90, 4, 8], max_new_tokens=60)
    together = generate(model, [full, short], [])
    assert [reply["token_ids"] for reply in together] == [
        generate(model, [alone], [])[0]["token_ids"] for alone in (full, short)
    ]


def test_a_sample_depends_on_its_seed_and_not_on_its_companions(model):
    alone = generate(model, [ask(PROMPTS[0], temperature=1.0, seed=5)], [1])[0]["token_ids"]
    among = generate(
        model,
        [ask(PROMPTS[2]), ask(PROMPTS[0], temperature=1.0, seed=5), ask(PROMPTS[0], temperature=1.0, seed=6)],
        [1],
    )
    assert among[1]["token_ids"] == alone != among[2]["token_ids"]
    assert among[0]["token_ids"] == generate(model, [ask(PROMPTS[2])], [1])[0]["token_ids"]


def test_sampling_follows_the_tempered_distribution():
    logits, temperature, draws = torch.tensor([0.3, -1.0, 2.0, -200.0, 0.0]), 1.7, 5000
    uniform = (torch.arange(draws) + 0.5) / draws
    drawn = _choose(logits.expand(draws, -1), torch.full((draws,), temperature), uniform)
    expected = torch.softmax(logits.double() / temperature, -1) * draws
    assert (torch.bincount(drawn, minlength=5) - expected).abs().max() <= 1
    assert _choose(logits[None], torch.tensor([temperature]), torch.tensor([0.0])).item() == 0


def test_overflown_logits_are_refused(tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float16)
    with torch.no_grad():
        model.lm_head.weight.fill_(60000)
    with pytest.raises(FloatingPointError, match="float16"):
        generate(model, [ask(PROMPTS[0])], [1])
