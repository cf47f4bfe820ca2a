"""The PyTorch side: transformers, PEFT and TRL as their users run them. A process that never imports JAX.

python -m kdjax.benchmark.torch_side '{"task": …}' answers commands on its pipes, see `kdjax.benchmark.channel`.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from kdjax.benchmark.channel import Channel

ROWS = 4  # of TRL's device batch, as of ours


def main() -> None:
    """Do the task that the settings name until the channel closes."""
    settings, channel = json.loads(sys.argv[1]), Channel()
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    transformers.utils.logging.disable_progress_bar()
    {"step": step, "train": train, "generate": generate}[settings["task"]](settings, channel)


def _model(settings) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=torch.float32)


def _with_lora(model: torch.nn.Module, settings) -> torch.nn.Module:
    lora = settings["lora"]
    return get_peft_model(model, LoraConfig(r=lora["r"], lora_alpha=lora["lora_alpha"], target_modules="all-linear"))


def step(settings, channel: Channel) -> None:
    """{"tokens": [[…]]}: one optimizer step on all next-token predictions of a batch without padding."""
    model = _with_lora(_model(settings), settings).train()
    forward = torch.compile(model) if settings["compile"] else model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=0.0)
    for command in channel:
        if "threads" in command:
            torch.set_num_threads(command["threads"])
        tokens = torch.tensor(command["tokens"])
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
    packed = {"packing": True, "max_length": settings["pack_length"]} if settings["packing"] else {"max_length": None}
    batch = settings["batch_size"]
    config = SFTConfig(
        output_dir=settings["scratch"],
        per_device_train_batch_size=1 if settings["packing"] else ROWS,
        gradient_accumulation_steps=_packs_per_step(settings, chosen) if settings["packing"] else batch // ROWS,
        gradient_checkpointing=settings["gradient_checkpointing"],
        learning_rate=settings["learning_rate"],
        completion_only_loss=True,
        num_train_epochs=1,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **packed,
    )

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset or self.train_dataset)

        def training_step(self, model, inputs, *args, **kwargs):
            ids = inputs["input_ids"]
            packed = "position_ids" in inputs
            seen["padded_tokens"] += ids.numel()
            seen["real_tokens"] += ids.numel() if packed else int(inputs["attention_mask"].sum())
            seen["examples"] += int((inputs["position_ids"] == 0).sum()) if packed else len(ids)
            return super().training_step(model, inputs, *args, **kwargs)

    class OneByOne(transformers.TrainerCallback):
        """Waits for a command before each step, and answers after it."""

        def on_step_begin(self, args, state, control, **kwargs):
            if channel.receive() is None:
                sys.exit(0)

        def on_step_end(self, args, state, control, **kwargs):
            channel.reply(**seen)
            seen.update(dict.fromkeys(seen, 0))

    seen = {"examples": 0, "real_tokens": 0, "padded_tokens": 0}
    model = _model(settings)
    lora = settings["lora"]
    peft_config = LoraConfig(
        r=lora["r"], lora_alpha=lora["lora_alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(Path(settings["tokenizer"]) / "tokenizer.json"),
        eos_token=settings["eos_token"],
        pad_token=settings["eos_token"],
    )
    trainer = InOrder(
        model, config, train_dataset=rows, processing_class=tokenizer, peft_config=peft_config, callbacks=[OneByOne()]
    )
    trainer.train()


def _packs_per_step(settings, chosen) -> int:
    """How many packs hold about one optimizer step's examples."""
    mean = sum(len(p) + len(c) for p, c in chosen) / len(chosen)
    return max(1, round(settings["batch_size"] * mean / settings["pack_length"]))


def generate(settings, channel: Channel) -> None:
    """{"members": […], "batch_size"}: greedy answers to test prompts, longest first, padded on the left; the adapter is merged."""
    model = PeftModel.from_pretrained(_model(settings), settings["adapter"]).merge_and_unload().eval()
    prompts = json.loads(Path(settings["workload"]).read_text())["test"]
    eos, steps = settings["eos_ids"], settings["max_new_tokens"]
    for command in channel:
        members = sorted(command["members"], key=lambda i: -len(prompts[i]))
        answers, size, padded = {}, command["batch_size"], 0
        for start in range(0, len(members), size):
            part = members[start : start + size]
            width = max(len(prompts[i]) for i in part)
            ids = torch.tensor([[eos[0]] * (width - len(prompts[i])) + prompts[i] for i in part])
            mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in part])
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


if __name__ == "__main__":
    main()
