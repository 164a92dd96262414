"""diffusers and transformers in a quarter of the time: without what no test of a stage uses, of them and of torch."""

import contextlib
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.distributed


def as_it_is(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A decorator without effect, with or without arguments of its own."""
    return as_it_is if function is None else function


class NotImported:
    """A class of torch's compiler of which there is no object, as long as nothing was compiled."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise RuntimeError("This needs torch's compiler, and is done in a `with without_compiler()`.")


class Later(type):
    """A class (or function) that is imported when it is used: called, asked for something or derived from.

    Attributes:
        home: the module that has it.
        before: the module that was imported before there is any object of it.
    """

    home: str
    before: str

    def __new__(cls, name: str, bases: tuple[type, ...], content: dict[str, Any]) -> Any:
        late = [base for base in bases if isinstance(base, Later)]
        if late:
            return type(name, tuple(base.real() if base in late else base for base in bases), content)
        return super().__new__(cls, name, bases, content)

    def real(cls) -> Any:
        return getattr(importlib.import_module(cls.home), cls.__name__)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.real()(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls.real(), name)

    def __instancecheck__(cls, thing: Any) -> bool:
        real = cls.real() if cls.before in sys.modules else cls
        return real is not cls and isinstance(thing, real)


def later(name: str, home: str, before: str = "") -> Any:
    return Later(name, (), {"home": home, "before": before or home})


# What diffusers and transformers ask of the compiler where nothing is compiled: decorators that tell it how to treat a
# function or class, and whether a model was compiled. Anything else is an ImportError or AttributeError. Of peft,
# which only LoRA needs, it is what they name at their top.
STAND_INS = {
    "torch._dynamo": {
        "allow_in_graph": as_it_is,
        "assume_constant_result": as_it_is,
        "disable": as_it_is,
        "eval_frame": SimpleNamespace(OptimizedModule=NotImported),
    },
    "torch._dynamo._trace_wrapped_higher_order_op": {"TransformGetItemToIndex": NotImported},
    "peft": {
        "PeftModel": later("PeftModel", "peft", "peft.peft_model"),
        "set_peft_model_state_dict": later("set_peft_model_state_dict", "peft"),
    },
    "peft.helpers": {"disable_input_dtype_casting": later("disable_input_dtype_casting", "peft.helpers")},
    "peft.tuners": {},
    "peft.tuners.tuners_utils": {"BaseTunerLayer": later("BaseTunerLayer", "peft.tuners.tuners_utils")},
}

# Packages whose own file imports all that is in them, or opens the 1,600 files of transformers' models to see what
# there is; and where that is which is asked of such a package.
CLIP, MAPPINGS = "transformers.models.clip", "transformers.models.auto.auto_mappings"
ON_DEMAND: dict[str, dict[str, str]] = {
    "diffusers.models.autoencoders": {},
    "diffusers.models.transformers": {},
    "diffusers.models.unets": {},
    "transformers": {
        "CLIPConfig": f"{CLIP}.configuration_clip",
        "CLIPTextConfig": f"{CLIP}.configuration_clip",
        "CLIPTextModel": f"{CLIP}.modeling_clip",
        "CLIPTextModelWithProjection": f"{CLIP}.modeling_clip",
        "CLIPTokenizer": f"{CLIP}.tokenization_clip",
        "CLIPVisionModel": f"{CLIP}.modeling_clip",
        "CLIPVisionModelWithProjection": f"{CLIP}.modeling_clip",
        "PreTrainedModel": "transformers.modeling_utils",
        "PreTrainedTokenizer": "transformers.tokenization_python",
    },
    "transformers.models": {},
    "transformers.models.auto.image_processing_auto": {"IMAGE_PROCESSOR_MAPPING_NAMES": MAPPINGS},
    "transformers.models.auto.processing_auto": {"PROCESSOR_MAPPING_NAMES": MAPPINGS},
    "transformers.processing_utils": {"Unpack": "typing"},
    "transformers.quantizers": {"HfQuantizer": "transformers.quantizers.base"},
}
# Of transformers, what only stands beside the models that are compared.
UNUSED = {
    "AutoImageProcessor": "transformers.image_processing_base",
    "CLIPImageProcessor": "transformers.image_processing_base",
    "SiglipImageProcessor": "transformers.image_processing_base",
    "SiglipVisionModel": "transformers.models.siglip.modeling_siglip",
}


class Package(ModuleType):
    """One of ON_DEMAND: its own file runs when it is asked for what is neither a module of it nor listed there."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return importlib.metadata.version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        now = sys.modules[self.__name__]
        if now is not self:  # transformers puts another object in its place
            return getattr(now, name)
        module = f"{self.__name__}.{name}"
        if PathFinder.find_spec(module, getattr(self, "__path__", [])):
            return importlib.import_module(module)
        if Finder in sys.meta_path and name in UNUSED and self.__name__ == "transformers":
            return later(name, "transformers", UNUSED[name])
        if home := ON_DEMAND[self.__name__].get(name):
            return getattr(importlib.import_module(home), name)
        self.__spec__.loader = self.__loader__ = self.__spec__.loader_state
        self.__class__ = ModuleType
        self.__loader__.exec_module(self)
        now = sys.modules[self.__name__]
        if now is not self:
            self.__class__ = Package
        return getattr(now, name)


class Finder:
    """Finds the packages of ON_DEMAND, and is the loader that leaves their files unread."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in ON_DEMAND else None
        if spec:
            spec.loader, spec.loader_state = cls, spec.loader  # type: ignore
        return spec

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return Package(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        pass


class PeftFinder:
    """Has peft imported in this context, by whom and when it may be: it notes then if there are several machines."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "peft" else None
        if spec:
            spec.loader, spec.loader_state = cls, spec.loader  # type: ignore
        return spec

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        pass

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        with without_compiler():
            module.__spec__.loader_state.exec_module(module)  # type: ignore


sys.meta_path.insert(0, PeftFinder)  # type: ignore
getmodule = inspect.getmodule


def module_of(thing: Any, file: str | None = None) -> ModuleType | None:
    """inspect.getmodule, which for a frame asks all modules that there are; torch asks it at every operator."""
    return sys.modules.get(thing.f_globals["__name__"]) if inspect.isframe(thing) else getmodule(thing, file)


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """What is imported or made in this context goes without torch's compiler and without computing on several machines.

    diffusers and transformers import both whether they use them or not, which takes longer than the import of torch. In
    this context torch says that it was built without the second, as it is on some systems, and the first has a stand-in
    without effect, and so has peft. Packages of theirs that import much more than is asked for (ON_DEMAND) do so when
    more is asked for, then or at any later time. Afterwards all is there as ever. Not one line of what computes is
    another one, and code of a learner never runs in it.
    """
    there = tuple(name for name in ("torch._dynamo", "peft") if name in sys.modules)
    modules = {name: ModuleType(name) for name in STAND_INS if not name.startswith(there)}
    for name, module in modules.items():
        vars(module).update(STAND_INS[name], __path__=[], __spec__=ModuleSpec(name, None))
        sys.modules[name] = module
    several_machines, distributions = torch.distributed.is_available, importlib.metadata.packages_distributions
    torch.distributed.is_available = lambda: False
    importlib.metadata.packages_distributions = dict  # reads 5,000 names of files
    inspect.getmodule = module_of
    sys.meta_path.insert(0, Finder)  # type: ignore
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)  # type: ignore
        inspect.getmodule = getmodule
        importlib.metadata.packages_distributions = distributions
        torch.distributed.is_available = several_machines
        for name in modules:
            del sys.modules[name]
