"""kdjax: distil a teacher LLM's knowledge into small JAX students for bundle generation (arXiv 2504.17220)."""
