"""The Hugging Face teacher as seen from this side: a process of its own, spoken to over pipes."""

import importlib.util
from collections.abc import Generator, Sequence

from kdjax.child import Child, ChildDied
from kdjax.errors import InputError
from kdjax.sources import ModelFiles, Tokenizer, open_weights, read_config
from kdjax.teacher.calls import Request
from kdjax.teacher.replies import NoAnswer, generated

DTYPES = ("float32", "bfloat16", "float16")
TRIAL = (
    "Which of these products belong together: a camera, a tripod, a teapot?",
    "Name two of them.",
)  # a model's first


class HfWorker:
    """Runs a model in a process of its own: torch is never imported next to JAX, and its memory is given back.

    The process runs from `start`, called when a call is missing, to `close`.
    """

    def __init__(self, files: ModelFiles, tokenizer: Tokenizer, dtype: str):
        if dtype not in DTYPES:
            raise InputError(f"teacher dtype {dtype!r}: use one of {', '.join(DTYPES)}")
        self.files, self.tokenizer, self.dtype = files, tokenizer, dtype
        self.setting: dict = {}  # device and versions, known once it runs
        self._process: Child | None = None

    def check(self, requests: Sequence[Request]) -> None:
        """Raise InputError if a request does not fit the model's context, before anything is asked."""
        config = read_config(self.files)
        context = config.get("text_config", config).get("max_position_embeddings")
        for request in requests:
            prompt, new = len(request.prompt_ids), request.call.max_new_tokens
            if context and prompt + new > context:
                end = request.call.conversation[-1][1][-80:]
                raise InputError(
                    f"teacher {self.files.source}: a call needs {prompt} prompt tokens + {new} new ones = "
                    f"{prompt + new}, its context holds {context}; shorten the prompt that ends in {end!r}"
                )

    def check_model(self) -> None:
        """Raise InputError if torch or transformers is missing, a weights file is torn, or the model is no decoder."""
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(f'the "hf" teacher needs {" and ".join(missing)}: pip install -e ".[teacher]"')
        if read_config(self.files).get("is_encoder_decoder"):
            raise self._unsupported("config.json says is_encoder_decoder")
        if self.files.gguf is None:
            open_weights(self.files)

    def start(self) -> None:
        """Load the model in a process of its own, unless it runs already.

        Raises:
            InputError: torch or transformers is not installed, the model cannot be run step by step, or the process
                died (its last words are shown).
        """
        if self._process:
            return
        self.check_model()
        gguf = self.files.gguf.name if self.files.gguf else None
        folder = self.files.gguf.parent if self.files.gguf else self.files.folder
        settings = {
            "folder": str(folder.resolve()),
            "gguf_file": gguf,
            "dtype": self.dtype,
            "eos_ids": self.tokenizer.eos_ids,
            "trial_prompts": [self.tokenizer.encode(text) for text in TRIAL],
        }
        # The model is on the disk: nothing is downloaded, and no usage is reported.
        self._process = Child("kdjax.teacher.hf_worker", settings, {"HF_HUB_OFFLINE": "1"})
        hello = self._exchange()
        if "unsupported" in hello:
            self.close()
            raise self._unsupported(hello["unsupported"])
        self.setting = hello

    def _unsupported(self, why: str) -> InputError:
        return InputError(
            f'teacher {self.files.source}: {why}; the "hf" teacher runs decoder-only models that equal transformers\' own '
            "generate. Choose another model, or serve this one behind an endpoint (teacher.kind='http')"
        )

    def ask(self, batches: Sequence[Sequence[Request]]) -> Generator[list[tuple[Request, dict | NoAnswer]]]:
        """Ask batch by batch, each as it stands, since a model's rounding depends on a prompt's companions."""
        for batch in batches:
            yield [
                (request, self._row(request, reply)) for request, reply in zip(batch, self.answer(batch), strict=True)
            ]

    def _row(self, request: Request, reply: dict) -> dict:
        try:
            text = generated(self.tokenizer, request.prompt_ids, reply["token_ids"], reply["finish_reason"])
        except NoAnswer:  # the token ids say it again to whoever reads the row
            text = ""
        return reply | {"prompt_ids": request.prompt_ids, "text": text}

    def answer(self, requests: Sequence[Request]) -> list[dict]:
        """Ask one batch; a reply holds the columns of `Answer` that the model decides.

        Raises:
            InputError: the process died (its last words are shown).
        """
        batch = [
            {
                "prompt_ids": request.prompt_ids,
                "max_new_tokens": request.call.max_new_tokens,
                "temperature": request.call.temperature,
                "top_k_logprobs": request.call.top_k_logprobs,
                "seed": int(request.key[:15], 16),
            }
            for request in requests
        ]
        return self._exchange(batch)

    def close(self) -> None:
        """End the process and give its memory back. It holds nothing that could be lost."""
        if self._process:
            self._process.kill()
            self._process = None

    def _exchange(self, message: object = None):
        """Send a message, if there is one, and wait for the reply."""
        assert self._process is not None  # between `start` and `close`
        try:
            return self._process.exchange(message)
        except ChildDied as death:
            self.close()
            raise InputError(
                f"the teacher process for {self.files.source} died (exit status {death.status}; what it answered so far is kept). "
                f"If it ran out of memory, lower the batch size. Its last words:\n{death.last_words}"
            ) from death
        except BaseException:  # interrupted: the reply still to come would be taken for that of the next batch
            self.close()
            raise
