"""Checkpoints as people share them, and files that are something else."""

import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from course.core.assemble import for_generating
from course.core.config import tiny_config
from course.core.messages import Refusal
from course.draw import checkpoint, lora, motion
from course.draw.foreign import TEXT_ENCODER
from course.training.export import write_untrained
from course.training.unpack import unpack

pytestmark = pytest.mark.limit(60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a checkpoint, its config and its tokenizer."""
    folder = tmp_path_factory.mktemp("whole")
    write_untrained(tiny_config(), folder, seed=0)
    return folder


@pytest.fixture
def changed(whole, tmp_path):
    """changed(change, name) -> a checkpoint file beside config and tokenizer, with changed tensors."""
    for name in ("vocab.json", "merges.txt", "config.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())

    def make(change, name="other.safetensors"):
        tensors = change(load_file(whole / "model.safetensors"))
        if name.endswith(".safetensors"):
            save_file(tensors, tmp_path / name)
        else:
            torch.save(tensors, tmp_path / name)
        return tmp_path / name

    return make


def weights_of(path) -> dict[str, torch.Tensor]:
    """What a model is filled with from this file."""
    model = checkpoint.build(for_generating("solutions"), checkpoint.open_checkpoint(path))
    parts = {"vae": model.vae, "text": model.text_encoder, "unet": model.unet}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def without_prefix(tensors):
    return {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors.items()}


def with_more(*names):
    return lambda tensors: tensors | {name: torch.ones(3) for name in names}


COMMUNITY = {
    "discriminator": with_more("first_stage_model.loss.logvar", "first_stage_model.loss.discriminator.main.0.weight"),
    "average of the VAE": with_more("first_stage_model.model_ema.decay"),
    "text projection": with_more(TEXT_ENCODER + "text_projection.weight", TEXT_ENCODER + "logit_scale"),
    "text encoder of newer transformers": without_prefix,
    "schedule": with_more("betas", "alphas_cumprod", "sqrt_recip_alphas_cumprod", "scale_factor"),
    "control net within": with_more("control_model.time_embed.0.weight"),
}


@pytest.mark.parametrize("change", COMMUNITY.values(), ids=COMMUNITY)
@pytest.mark.parametrize("name", ["other.safetensors", "other.ckpt"])
def test_what_people_share_gives_the_same_model(whole, changed, change, name):
    wanted, found = weights_of(whole), weights_of(changed(change, name))
    assert wanted.keys() == found.keys()
    for tensor in wanted:
        assert torch.equal(wanted[tensor], found[tensor]), tensor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float8_e4m3fn], ids=str)
def test_weights_of_other_floating_point_kinds(whole, changed, dtype):
    path = changed(lambda t: {n: x.to(dtype) if x.is_floating_point() else x for n, x in t.items()})
    for name, tensor in weights_of(path).items():
        assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_the_name_of_the_other_format(tmp_path, zipped):
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.zeros(2)}, path.with_suffix(".ckpt"), _use_new_zipfile_serialization=zipped)
    path.with_suffix(".ckpt").rename(path)
    assert message_about(path).endswith("is a .ckpt file under another name: rename it to weights.ckpt.")


def test_a_dictionary_that_contains_itself(tmp_path):
    data = {"epoch": 1}
    data["state_dict"] = data
    torch.save(data, tmp_path / "round.ckpt")
    with pytest.raises(ValueError, match=r"round\.ckpt holds no tensors\.$"):
        checkpoint.read_tensors(tmp_path / "round.ckpt")


def message_about(path) -> str:
    with pytest.raises(Refusal) as refusal:
        checkpoint.open_checkpoint(path)
    text = str(refusal.value)
    assert "\n" not in text and text.endswith(".") and path.name in text, text
    return text


NAMES = {
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
    "a LoRA, not": ["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"],
    "an adapter of the library PEFT": ["base_model.model.down_blocks.0.attentions.0.to_k.lora_A.weight"],
    "an IP-Adapter": ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"],
    "a textual inversion": ["emb_params"],
    "a ControlNet": ["control_model.input_blocks.0.0.weight"],
    "a ControlNet, not": ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
    "a LyCORIS adapter": ["lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a"],
    "a file of motion modules": ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
    "a Stable Video Diffusion": [
        "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight", "first_stage_model.encoder.conv_in.x",
        "conditioner.embedders.0.open_clip.model.visual.proj",
    ],
    "an SDXL": ["model.diffusion_model.out.0.weight", "first_stage_model.x", "conditioner.embedders.0.transformer.x"],
    "a Stable Diffusion 2.x": ["model.diffusion_model.out.0.weight", "first_stage_model.x", "cond_stage_model.model.x"],
    "a Stable Diffusion 3": ["model.diffusion_model.joint_blocks.0.x", "first_stage_model.decoder.conv_in.weight"],
    "a Flux": ["double_blocks.0.img_attn.qkv.weight"],
    "a Flux, not": ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"],
    "a Flux checkpoint": ["transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.attn.to_q.weight"],
    "a text encoder alone": ["text_model.embeddings.token_embedding.weight"],
    "a text encoder alone, not": ["embeddings.token_embedding.weight", "encoder.layers.0.layer_norm1.weight"],
    "a VAE alone": ["encoder.conv_in.weight", "decoder.conv_in.weight"],
    "a VAE alone, not": ["first_stage_model.decoder.conv_in.weight"],
    "a U-Net and a text encoder alone": ["model.diffusion_model.out.0.weight", TEXT_ENCODER + "text_model.x"],
    "a model in the layout of diffusers": ["down_blocks.0.resnets.0.conv1.weight"],
    "a CLIP model": ["text_model.embeddings.token_embedding.weight", "vision_model.embeddings.class_embedding"],
    "a safety checker": ["concept_embeds", "vision_model.vision_model.embeddings.class_embedding"],
}


@pytest.mark.parametrize(("what", "names"), NAMES.items(), ids=NAMES)
def test_each_kind_is_told_with_what_to_do_instead(tmp_path, what, names):
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "odd.safetensors")
    text = message_about(tmp_path / "odd.safetensors")
    assert f"odd.safetensors is {what.removesuffix(', not')}" in text
    instead = r"make weights|CHECKPOINT names|(LORA|MOTION)=` takes it, CHECKPOINT a"
    assert re.search(instead, text), "it does not say what to do instead"


def test_kinds_whose_tensors_are_deeper_inside(tmp_path):
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(1, 768)}}, tmp_path / "word.pt")
    assert "word.pt is a textual inversion" in message_about(tmp_path / "word.pt")
    torch.save({"image_proj": {"x": torch.zeros(1)}, "ip_adapter": {"y": torch.zeros(1)}}, tmp_path / "ip.bin")
    assert "ip.bin is an IP-Adapter" in message_about(tmp_path / "ip.bin")


BEGINNINGS = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n",
    "a web page": b"\n  <!DOCTYPE html>\n<html><head><title>Log in</title></head></html>",
    "JSON text": b'{"error": "Entry not found, or a repository that needs a token"}',
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a GGUF file": b"GGUF\x03\x00\x00\x00" + bytes(100),
    "a packed archive": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "empty": b"",
}


@pytest.mark.parametrize(("what", "content"), BEGINNINGS.items(), ids=BEGINNINGS)
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_files_that_hold_no_weights(tmp_path, what, content, suffix):
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(content)
    text = message_about(path)
    assert f"odd.{suffix} is {what}" in text and ": " in text


@pytest.mark.parametrize("what", ["JSON text", "a picture"])
@pytest.mark.parametrize("option", ["CONTINUE", "LORA", "MOTION"])
def test_the_option_is_named_that_named_the_file(tmp_path, what, option):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(BEGINNINGS[what])
    read = {
        "CONTINUE": lambda: unpack(path, tiny_config(), tmp_path / "run"),
        "LORA": lambda: lora.read_file(path),
        "MOTION": lambda: motion.put_motion({13: None}, None, None, path, 2, None),
    }[option]
    with pytest.raises(Refusal, match=rf"odd\.safetensors is {what}: .*{option}") as refusal:
        read()
    assert "CHECKPOINT" not in str(refusal.value)


def test_a_textual_inversion_as_a_lora(tmp_path):
    torch.save({"string_to_param": {"*": torch.zeros(1, 768)}}, tmp_path / "word.pt")
    with pytest.raises(Refusal, match=r"is a textual inversion, not a LoRA file: .*LORA names a LoRA file\.$"):
        lora.read_file(tmp_path / "word.pt")


def test_what_training_cannot_go_on_from(whole, tmp_path):
    def refusal(path) -> str:
        with pytest.raises(ValueError, match=r"CONTINUE|make weights|beside the model") as error:
            unpack(path, tiny_config(), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(error.value)

    for what, names in NAMES.items():
        save_file({name: torch.zeros(2) for name in names}, tmp_path / "odd.safetensors")
        assert "CHECKPOINT" not in refusal(tmp_path / "odd.safetensors"), what
    assert refusal(tmp_path / "none").endswith("none: CONTINUE names a .safetensors or .ckpt file.")
    assert ": CONTINUE names a file (in it: odd.safetensors)." in refusal(tmp_path)
    (tmp_path / "model.safetensors").symlink_to(whole / "model.safetensors")
    text = refusal(tmp_path / "model.safetensors")
    assert text.startswith("There is no vocab.json in ") and text.endswith(": they belong beside the model file.")


def test_the_length_of_a_table_may_look_like_text(tmp_path):
    """A .safetensors file begins with the length of its table: 0x227b are the characters of a JSON text."""
    name = "x" * (0x227B - 60)
    save_file({name: torch.zeros(1)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    table = content[8 : 8 + size].rstrip().ljust(0x227B)
    (tmp_path / "a.safetensors").write_bytes((0x227B).to_bytes(8, "little") + table + content[8 + size :])
    assert list(checkpoint.read_tensors(tmp_path / "a.safetensors")[0]) == [name]


def test_folders(whole, tmp_path):
    assert checkpoint.open_checkpoint(whole).path == whole / "model.safetensors"
    assert "no model.safetensors in the folder" in message_about(tmp_path)
    (tmp_path / "anything.safetensors").write_bytes(b"x")
    assert "(in it: anything.safetensors)" in message_about(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    text = message_about(tmp_path)
    assert "layout of diffusers" in text and "CHECKPOINT names one file" in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.limit(10)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(ValueError, match=r"pipe\.ckpt is not a file: CHECKPOINT names"):
        checkpoint.open_checkpoint(tmp_path / "pipe.ckpt")


# --- files that are nearly right -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool], ids=str)
def test_weights_that_are_no_floating_point_numbers(changed, dtype):
    name = "first_stage_model.quant_conv.weight"
    path = changed(lambda tensors: tensors | {name: tensors[name].to(dtype)})
    assert f"{name} as {str(dtype).removeprefix('torch.')}" in message_about(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.diffusion_model.input_blocks.1.3.weight", "no EMA weights"),
        (TEXT_ENCODER + "text_model.encoder.layers.0.adapter.weight", "unknown tensor"),
        ("first_stage_model.encoder.mid.other.weight", "unknown tensor"),
    ],
)
def test_what_the_remapper_says_names_the_file(changed, name, words):
    path = changed(with_more(name))
    with pytest.raises(ValueError, match=rf"^.*other\.safetensors: .*{words}"):
        weights_of(path)


def test_averages_that_are_not_complete(changed):
    def without_one(tensors):
        return {name: tensor for name, tensor in tensors.items() if "diffusion_modelout2bias" not in name}

    path = changed(without_one)
    with pytest.raises(ValueError, match=r"other\.safetensors: .*out2bias.*EMA=0 draws with the raw weights\.$"):
        weights_of(path)
    checkpoint.build(for_generating("solutions"), checkpoint.open_checkpoint(path), ema=False)


@pytest.mark.parametrize("pattern", [r"decoder\.up\.", r"input_blocks\.\d+\.0\.op\."])
def test_parts_that_the_remapper_counts_on(changed, pattern):
    path = changed(lambda tensors: {name: t for name, t in tensors.items() if not re.search(pattern, name)})
    assert "nothing in it is called" in message_about(path)


def test_names_that_would_command_the_terminal(changed, capsys):
    from course import cli

    path = changed(with_more("first_stage_model.\x1b[2J\x1b]0;owned\x07"))
    assert cli.main(["generate", f"--checkpoint={path}", "--steps=1", "--blocks=solutions", "--out=x.png"]) == 2
    assert not set(capsys.readouterr().err) & {"\x1b", "\x07"}
