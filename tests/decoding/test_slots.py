from types import SimpleNamespace

import jax.numpy as jnp

from kdjax.decoding.automaton import compile_automaton, session_language
from kdjax.decoding.slots import Answers, Programs

STEPS = 12


def test_an_answer_is_rescued_where_the_automaton_forbids_what_was_wanted(student):
    """Three rows at the start of an answer: one wants what may come, one something else, and one something else but is not asked."""
    tokenizer, vocab = student.tokenizer, student.config.vocab_size
    automaton, starts = compile_automaton([session_language("json", 3)] * 3, tokenizer, vocab, STEPS)
    (opening,), (letter,) = tokenizer.encode("["), tokenizer.encode("a")
    none = jnp.zeros(3, jnp.int32)
    answers = Answers(
        out=jnp.full((3, STEPS), tokenizer.eos_id),
        written=none,
        unread=none,
        state=jnp.asarray(starts),
        added=none,
        done=none != 0,
        rescued=none != 0,
    )
    wants = jnp.eye(vocab)[jnp.array([opening, letter, letter])]
    programs = Programs(student.graph, student.config, jnp.float32, STEPS, (tokenizer.eos_id,))
    asked = jnp.array([True, True, False])
    after = programs._choose(SimpleNamespace(head=jnp.eye(vocab)), automaton, wants, answers, asked)
    assert after.rescued.tolist() == [False, True, False]
    assert after.out[:2, 0].tolist() == [opening, opening] and after.written[2] == 0
    free = programs._choose(SimpleNamespace(head=jnp.eye(vocab)), None, wants, answers, asked)
    assert not free.rescued.any() and free.out[1, 0] == letter
