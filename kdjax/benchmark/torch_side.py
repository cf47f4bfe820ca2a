"""The PyTorch side: transformers, PEFT and TRL as their users run them. A process that never imports JAX.

python -m kdjax.benchmark.torch_side '{"task": …}' answers commands on its pipes, see `kdjax.benchmark.channel`.
"""

import json
import sys
import time
from pathlib import Path

import torch
import transformers
from peft import PeftModel

from kdjax.benchmark.channel import Channel


def main() -> None:
    """Do the task that the settings name until the channel closes."""
    settings = json.loads(sys.argv[1])
    channel = Channel(lambda: finish(settings["device"]))
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    transformers.utils.logging.disable_progress_bar()
    {"step": step, "train": train, "generate": generate, "matmul": matmul}[settings["task"]](settings, channel)


def finish(device: str) -> int | None:
    """Wait until a GPU has done what it was asked; the largest memory that tensors took there so far, in bytes."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _with_adapter(settings, dtype: torch.dtype, trained: bool) -> PeftModel:
    """The model with the adapter that the JAX side saved: both sides start from the same weights. PEFT keeps the adapter in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype)
    return PeftModel.from_pretrained(model, settings["adapter"], is_trainable=trained)


def step(settings, channel: Channel) -> None:
    """{"tokens": [[…]]}: one optimizer step on all next-token predictions of a batch without padding."""
    device, dtype = settings["device"], getattr(torch, settings["dtype"])
    model = _with_adapter(settings, dtype, trained=True).to(device).train()
    forward = torch.compile(model) if settings["compile"] else model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=0.0)
    for command in channel:
        if "threads" in command:
            torch.set_num_threads(command["threads"])
        tokens = torch.tensor(command["tokens"], device=device)
        # As TRL computes, too: products with the adapter, which is float32, are of the base's dtype.
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = forward(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        channel.reply(loss=loss.item())


def train(settings, channel: Channel) -> None:
    """TRL's SFTTrainer on the examples in the order given; each command lets it take one optimizer step."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import SFTConfig, SFTTrainer

    examples = json.loads(Path(settings["workload"]).read_text())["train"]
    chosen = [examples[i] for i in settings["order"]]
    rows = Dataset.from_list([{"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c)} for p, c in chosen])
    arguments = {"max_length": None} | settings["arguments"]
    own = SFTConfig.per_device_train_batch_size  # the default, for who does not choose
    per_step = settings["batch_size"] // arguments.get("per_device_train_batch_size", own)
    config = SFTConfig(
        output_dir=settings["scratch"],
        gradient_accumulation_steps=_packs_per_step(settings, chosen) if "packing" in arguments else max(1, per_step),
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        completion_only_loss=True,
        num_train_epochs=1,
        bf16=settings["dtype"] == "bfloat16",
        use_cpu=settings["device"] == "cpu",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **arguments,
    )

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset or self.train_dataset)  # type: ignore[arg-type]  # it has a length

        def training_step(self, model, inputs, *args, **kwargs):
            seen["padded_tokens"] += inputs["input_ids"].numel()
            if "position_ids" in inputs:
                packed = _examples_of(inputs["input_ids"], inputs["position_ids"])
                held.extend(members[example] for example in packed)
                seen["examples"] += len(packed)
                seen["real_tokens"] += sum(map(len, packed))
            else:
                seen["examples"] += len(inputs["input_ids"])
                seen["real_tokens"] += int(inputs["attention_mask"].sum())
            loss = super().training_step(model, inputs, *args, **kwargs)
            seen["loss"] += loss.item()  # TRL divides each by the targets of the whole step: the sum is its mean
            return loss

    class OneByOne(transformers.TrainerCallback):
        """Waits for a command before each step, and answers after it."""

        def on_step_begin(self, args, state, control, **kwargs):
            if channel.receive() is None:
                sys.exit(0)

        def on_step_end(self, args, state, control, **kwargs):
            channel.reply(**seen, members=[*held])
            seen.update(dict.fromkeys(seen, 0))
            held.clear()

    seen = {"examples": 0, "real_tokens": 0, "padded_tokens": 0, "loss": 0.0}
    held: list[int] = []  # the examples in packs; those of other batches are known
    members = {(*p, *c): i for i, (p, c) in zip(settings["order"], chosen, strict=True)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(Path(settings["tokenizer"]) / "tokenizer.json"),
        eos_token=settings["eos_token"],
        pad_token=settings["eos_token"],
    )
    model = _with_adapter(settings, getattr(torch, settings["dtype"]), trained=True)
    InOrder(model, config, train_dataset=rows, processing_class=tokenizer, callbacks=[OneByOne()]).train()


def _examples_of(tokens: torch.Tensor, positions: torch.Tensor) -> list[tuple[int, ...]]:
    """The examples in a batch of packs. Their positions are 0 1 2 … each, and 0 0 0 … those of what fills a pack up."""
    flat, starts = tokens.flatten(), (positions.flatten() == 0).nonzero().flatten().tolist()
    pieces = torch.tensor_split(flat, starts[1:])
    return [tuple(piece.tolist()) for piece in pieces if len(piece) > 1]


def _packs_per_step(settings, chosen) -> int:
    """How many packs hold about one optimizer step's examples."""
    mean = sum(len(p) + len(c) for p, c in chosen) / len(chosen)
    return max(1, round(settings["batch_size"] * mean / settings["arguments"]["max_length"]))


def generate(settings, channel: Channel) -> None:
    """{"members": […], "batch_size"}: greedy answers to test prompts, longest first, padded on the left; the adapter is merged."""
    # Merged in float32 and rounded once: a sum in bfloat16 would lose much of the update.
    merged = _with_adapter(settings, torch.float32, trained=False).merge_and_unload().eval()
    model = merged.to(settings["device"], getattr(torch, settings["dtype"]))
    prompts = json.loads(Path(settings["workload"]).read_text())["test"]
    eos, steps = settings["eos_ids"], settings["max_new_tokens"]
    for command in channel:
        members = sorted(command["members"], key=lambda i: -len(prompts[i]))
        answers, size, padded = {}, command["batch_size"], 0
        for start in range(0, len(members), size):
            part = members[start : start + size]
            width = max(len(prompts[i]) for i in part)
            ids, mask = (
                torch.tensor(rows, device=model.device)
                for rows in (
                    [[eos[0]] * (width - len(prompts[i])) + prompts[i] for i in part],
                    [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in part],
                )
            )
            with torch.no_grad():
                out = model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=steps,
                    do_sample=False,
                    eos_token_id=eos,
                    pad_token_id=eos[0],
                )
            padded += ids.numel()
            for i, row in zip(part, out[:, width:].tolist(), strict=True):
                end = next((n for n, token in enumerate(row) if token in eos), len(row) - 1)
                answers[i] = row[: end + 1]
        channel.reply(
            answers=[answers[i] for i in command["members"]],
            real_tokens=sum(len(prompts[i]) for i in members),
            padded_tokens=padded,
        )


def matmul(settings, channel: Channel) -> None:
    """The rate of plain matrix products, flop/s, as the JAX side measures its own."""
    hidden, inner = settings["shape"]
    x, w = (
        torch.randn(rows, hidden, device=settings["device"], dtype=getattr(torch, settings["dtype"]))
        for rows in (settings["rows"], inner)
    )
    x @ w.T
    for _ in channel:
        finish(settings["device"])
        started = time.perf_counter()
        for _ in range(settings["repeats"]):
            x @ w.T
        finish(settings["device"])
        seconds = time.perf_counter() - started
        channel.reply(rate=2 * settings["rows"] * hidden * inner * settings["repeats"] / seconds)


if __name__ == "__main__":
    main()
