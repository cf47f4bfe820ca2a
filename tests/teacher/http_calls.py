"""What the tests of the HTTP teacher ask."""

from http_stand_in import Reply

from kdjax.teacher import Answer, Call

KEY = "sk-test-0123456789abcdef"
PROMPTS = [f"question {n}" for n in range(6)]
CALLS = [Call((("user", prompt),), max_new_tokens=8) for prompt in PROMPTS]
ODD = PROMPTS[2]  # what goes wrong, goes wrong with this prompt


def texts(answers: list[Answer]) -> list[str]:
    """What was said."""
    return [answer.text for answer in answers]


def content(value, finish="stop") -> Reply:
    """A whole reply with this content."""
    return Reply(body={"choices": [{"message": {"content": value}, "finish_reason": finish}]})
