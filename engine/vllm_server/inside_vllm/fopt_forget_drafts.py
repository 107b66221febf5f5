"""`ForgetDrafts`: a call more for vLLM's workers, which starts a proposer anew that remembers earlier answers.

Suffix decoding keeps what was answered and drafts from it, and vLLM (0.32.0) has no call that empties that memory:
traffic that is replayed twice would be drafted from its own answers. Imports nothing: vLLM's environment need not have
us.
"""

from typing import Any


class ForgetDrafts:
    """Given as `--worker-extension-cls`; the call is reached by /collective_rpc."""

    model_runner: Any

    def fopt_forget_drafts(self) -> str:
        """`forgotten`, or `none` on a rank that drafts nothing; no request may be running."""
        runner = self.model_runner
        proposer = getattr(runner, "drafter", None)
        if proposer is None:
            return "none"
        runner.drafter = type(proposer)(runner.vllm_config)
        return "forgotten"
