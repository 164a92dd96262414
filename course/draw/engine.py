"""Drawing with OpenVINO, if that is installed: a library of Intel's that runs networks on processors of many makers."""

import importlib.util
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from course.core.messages import Refusal, first_line

ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.2}  # of the largest value; measured: 1e-6 and 0.02


def check_engine(engine: str, device: torch.device, dtype: torch.dtype, compiled: bool) -> None:
    """A Refusal, in one sentence, if this engine is not installed or cannot do what is asked of it."""
    if engine == "torch":
        return
    if importlib.util.find_spec(engine) is None:
        raise Refusal("ENGINE=openvino is not installed here: pip install openvino, or draw with ENGINE=torch.")
    if device.type != "cpu":
        raise Refusal(f"ENGINE=openvino draws on the processor: DEVICE=cpu, or ENGINE=torch for DEVICE={device.type}.")
    if dtype not in ROUNDING:
        raise Refusal("ENGINE=openvino draws in float32 or bfloat16: DTYPE=float16 needs ENGINE=torch.")
    if compiled:
        raise Refusal("ENGINE=openvino and COMPILE=1 do not go together: choose one of them.")


def use_openvino(model: Any, dtype: torch.dtype) -> None:
    """Makes U-Net and decoder of a filled StableDiffusion (stage 9), in float32, run in OpenVINO.

    Args:
        model: changed in place.
        dtype: what OpenVINO computes in; what goes in and comes out is float32.
    """
    model.unet = InOpenVINO(model.unet, dtype)
    model.vae.decoder = InOpenVINO(model.vae.decoder, dtype)


class InOpenVINO(nn.Module):
    """A module whose operations OpenVINO runs; for each shape of its inputs they are recorded when it first comes.

    What is recorded is what the module does with its first inputs: an `if` or a number that Python works out of them
    stays as it was. So the result for other inputs is compared with that of the module before it is used.

    Args:
        module: takes and returns tensors, the same number of them each time.
        dtype: what OpenVINO computes in.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module = module
        self.dtype = dtype
        self.recorded: Any = None
        self.programs: dict[tuple[torch.Size, ...], Any] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self.programs:
            self.programs[shapes] = self.program(inputs)
        return self.run(self.programs[shapes], inputs)

    def run(self, program: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        results = program.infer([tensor.contiguous().numpy() for tensor in inputs], share_inputs=True)
        return torch.from_numpy(results[0])

    def program(self, inputs: tuple[Tensor, ...]) -> Any:
        """OpenVINO's program for inputs of these shapes."""
        import openvino

        others = tuple(another(tensor) for tensor in inputs)
        wanted = self.module(*others)  # also: a mistake in a learner's block shows here, as it does without an engine
        try:
            if self.recorded is None:
                with warnings.catch_warnings():
                    warnings.simplefilter(
                        "ignore"
                    )  # of torch, that it records; of numpy, that a view cannot be written to
                    self.recorded = openvino.convert_model(self.module, example_input=inputs)
            shaped = self.recorded.clone()
            shaped.reshape({i: list(tensor.shape) for i, tensor in enumerate(inputs)})
            precision = "bf16" if self.dtype == torch.bfloat16 else "f32"
            settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            program = openvino.Core().compile_model(shaped, "CPU", settings).create_infer_request()
            found = self.run(program, others)
        except MemoryError:
            raise
        except Exception as error:  # of whatever kind: it could not be recorded, or an operation is not known
            raise Refusal(f"ENGINE=openvino failed ({first_line(error, 120)}): draw with ENGINE=torch.") from None
        if not torch.allclose(found, wanted, rtol=0.0, atol=ROUNDING[self.dtype] * float(wanted.abs().max())):
            raise Refusal(
                "ENGINE=openvino gives another result than the blocks themselves, which do not do the same with every "
                "input: draw with ENGINE=torch."
            )
        return program

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def another(tensor: Tensor) -> Tensor:
    """Other values of the same kind: of a whole number the next one, and otherwise the last ones first."""
    return tensor + 1 if not tensor.is_floating_point() else tensor.flatten().flip(0).reshape(tensor.shape)
