"""Every field of a run, with its default and its meaning. The files in configs/ are this one plus the few lines that differ."""

from ml_collections import ConfigDict
from ml_collections.config_dict import create, placeholder

from kdjax.sources import DEFAULT_MODEL


def base(name: str) -> ConfigDict:
    """The whole pipeline for one experiment: distil, fine-tune, generate, evaluate, report."""
    return create(
        name=name,  # in the default workdir, runs/<name>-<hash>
        job="run",  # "run": one experiment; "study": a grid of them; "generate": bundles for new sessions; others in launch.py
        seed=0,  # of everything that is drawn: sessions to distil from, LoRA's init, batches, dropout
        parallel="pmap",  # "pmap": each device has a copy of the base, and a share of a batch; "mesh": the base is cut over devices, too
        mesh=create(  # for "mesh": devices of a process are data × fsdp × tensor, data being what is left
            fsdp=1,  # cuts the base and the batch: a layer's weights are gathered when it is computed
            tensor=1,  # cuts the base alone: each device computes a part of every layer
        ),
        data=create(
            source="demo",  # "demo" (synthetic, made here), "bundlerec" (CSV files), "jsonl" (your own, see docs/data.md) or "completejourney" (grocery baskets without bundles)
            root="",  # the folder that holds one folder per domain
            domains=("demo",),  # trained on together, tested on each
        ),
        teacher=create(
            kind="hf",  # "hf": a model in transformers; "http": an endpoint; "annotations": no model, rules from statistics; "replay": recorded answers only
            source=DEFAULT_MODEL,  # a stand-in: it is the student's own model. Name a real teacher for a real study, or the endpoint's name for one
            dtype="float32",  # of the teacher's weights
            batch_size=8,  # prompts answered together; "http": requests sent at once
            url="",  # "http" only: what comes before /chat/completions, as in "https://api.openai.com/v1"
            key_variable="",  # "http" only: the environment variable that holds the API key, as in "OPENAI_API_KEY"; "": none is sent
            thinking=False,  # True: a reasoning model thinks before it answers, and needs a larger knowledge.max_new_tokens; its thinking is cut out
            cache_dir="",  # shared by all runs; "" is ~/.cache/kdjax/teacher
        ),
        knowledge=create(
            formats=(
                "rules",
            ),  # any of "patterns", "rules" (both in the prompt) and "thoughts" (written before the answer)
            reflections=8,  # training sessions per domain that the teacher reflects on, for rules; 0: all. Of a sample (see quantity): those in it
            thoughts=0,  # the same for thoughts: sessions that the teacher thinks about; 0: all. The others train on bare answers
            strategy="random",  # which sessions: "random", "length" or "diversity"
            max_new_tokens=64,  # most tokens of one teacher turn
            limit=10,  # most cards of a format in the prompt
            max_tokens=160,  # most tokens of the rules in the prompt, their heading and numbers included
            min_count=5,  # training bundles that a pattern must be in
            thoughts_in="target",  # "target": written before the answer; "demonstrations": read below a demonstration's products
            all_domains=False,  # True: of several domains, each prompt has the cards of all, not of its own alone
            keep="all",  # "all", or "validated": only cards that raise the untrained student's strict F1 on validation
        ),
        quantity=create(
            ratio=1.0,  # share of the training sessions, per domain; samples are nested
            strategy="random",  # which: "random", "length" (in proportion), "diversity" (k-center) or "difficulty" (for the untrained student)
            applies_to=(
                "knowledge",
                "training",
            ),  # what the others do not yield: knowledge and demonstrations, training examples
        ),
        prompting=create(
            fields=(
                "title",
                "categories",
            ),  # of each line: "title", and "categories" (all names on its category paths) or "category" (the leaf)
            demonstrations=0,  # how many training sessions are shown with their bundles: the nearest ones by their titles
            encoder="",  # of titles, to find the nearest (and AICL's neighbours): a sentence encoder's folder or hub name; "": TF-IDF
            title_words=8,  # most words of a title; 0: all
        ),
        student=create(
            source=DEFAULT_MODEL,
            answer="pairs",  # "pairs": a head on its hidden states judges which products belong together; "text": it writes the bundles
            pair_layers=6,  # the states after this many layers are judged, by "pairs" and by the frozen student
            adapter="",  # a PEFT adapter folder to start from; "": a fresh one by the fields of `lora`
            quantization=placeholder(str),  # of the frozen base: "int8" or "nf4" (QLoRA); left empty: none
            dtype="float32",  # of the frozen base and the activations; on GPU and TPU "bfloat16"
        ),
        lora=create(  # PEFT's names and meanings
            r=16,
            lora_alpha=32.0,
            lora_dropout=0.0,
            target_modules="all-linear",  # or "q_proj,v_proj", or a regular expression of the path, model.layers.0.self_attn.q_proj
            exclude_modules="",  # in the same form
            use_rslora=False,  # scale by alpha / √r
            use_dora=False,
            rank_pattern=(),  # pairs like ("q_proj", 32): another rank where a path ends like this (regular expression)
            alpha_pattern=(),  # the same for lora_alpha
            layers_to_transform=(),  # numbers of the layers to adapt; (): all
        ),
        train=create(
            epochs=2,
            shuffle_products=True,  # each epoch has a session's products in another order, since their places mean nothing
            max_steps=-1,  # stop after this many optimizer steps; -1: all epochs; 0: no training
            batch_size=16,  # examples per optimizer step, over all devices
            micro_batch_tokens=2400,  # about as many as one device computes at a time: memory and speed, not results
            max_length=2048,  # most tokens of one example, prompt and target; a longer one is an error
            learning_rate=5e-4,
            warmup_ratio=0.1,  # share of the steps in which the rate rises; then it falls to zero (cosine)
            weight_decay=0.0,
            max_grad_norm=1.0,
            remat="linears",  # kept for the backward pass: "linears" (outputs of linear maps), "full" (layer inputs: least memory, slower), "none" (all)
            checkpoint_every=10,  # optimizer steps between checkpoints; there is one after each epoch anyway
        ),
        eval=create(
            orders=4,  # in how many orders the products are read where student.answer is "pairs"; the judgements are averaged
            constraint="none",  # of written answers. "none": free text, failures counted (the paper's); "json": a list of lists; "items": always valid
            max_sessions=0,  # per split and domain, evenly spaced; 0: all
            max_new_tokens=64,  # most tokens of an answer
            batch_size=64,  # prompts answered together on each device
            buckets=3,  # prompt lengths to compile for
        ),
        generate=create(  # for job="generate"
            sessions_file="",  # JSON lines {"id": …, "items": […]} or {"id": …, "products": [{"title": …}, …]}; "-": standard input
            items_file="",  # JSON lines {"id": …, "title": …, "categories": …}, where sessions name items
            out="",  # the file to write; "": bundles.jsonl in the workdir; "-": standard output
            domain="",  # whose knowledge the prompt has, where the adapter was trained on several domains
            min_probability=0.0,  # of a bundle that is named; one less probable than no bundle at all is never named
            pairs=False,  # also write the probability of each pair of products
            strict=False,  # True: a line that is not in its form is an error; otherwise it is reported and the rest is answered
        ),
    )
