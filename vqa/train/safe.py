"""trl's GRPOTrainer that stops before it does damage: no step along a gradient that is none, no torn checkpoint."""

from trl import GRPOTrainer

from vqa.train.checkpoints import Guarded
from vqa.train.metrics_log import peak_memory_gb


class SafeTrainer(Guarded, GRPOTrainer):  # type: ignore[misc]  # trl has no types
    """See the module; it also logs clips a second and the peak of memory."""

    what = "grpo"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """trl's, with clips a second and the peak of memory."""
        if seconds := self._metrics["train"].get("step_time"):
            clips = self.args.generation_batch_size // self.num_generations / self.num_iterations
            logs["clips_per_second"] = clips * len(seconds) / sum(seconds)
            logs["peak_memory_gb"] = peak_memory_gb()
        super().log(logs, start_time)
