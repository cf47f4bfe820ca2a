"""Who answers prompts: transformers in a process of its own, an HTTP endpoint, or a recorded cache; and the floor without a model."""

from kdjax.teacher.annotations import AnnotationRule, annotation_rules, annotation_thought
from kdjax.teacher.cache import TeacherCache, check_cache_dir
from kdjax.teacher.calls import Answer, Call, call_key
from kdjax.teacher.endpoint import check_endpoint, refuse_keys
from kdjax.teacher.misses import explain_miss
from kdjax.teacher.replies import NoAnswer
from kdjax.teacher.teachers import Stats, Teacher, open_teacher

__all__ = [
    "AnnotationRule",
    "Answer",
    "Call",
    "NoAnswer",
    "Stats",
    "Teacher",
    "TeacherCache",
    "annotation_rules",
    "annotation_thought",
    "call_key",
    "check_cache_dir",
    "check_endpoint",
    "explain_miss",
    "open_teacher",
    "refuse_keys",
]
