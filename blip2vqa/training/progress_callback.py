"""Progress of training and of its validation loss, as all other progress of this package is shown."""

from transformers import ProgressCallback
from transformers.trainer_utils import has_length

from blip2vqa.utils.progress import show_progress


class TrainingProgress(ProgressCallback):
    """Upstream's callback, whose bars become lines where there is no terminal."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.training_bar = show_progress(total=state.max_steps, desc="training", unit="step")
        self.current_step = 0

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if state.is_world_process_zero and has_length(eval_dataloader):
            if self.prediction_bar is None:
                self.prediction_bar = show_progress(
                    total=len(eval_dataloader), desc="validation loss", unit="batch", leave=self.training_bar is None
                )
            self.prediction_bar.update(1)
