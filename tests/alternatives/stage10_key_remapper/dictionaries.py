"""Comprehensions for the averages and for loading; sets of names."""


def select_ema(state_dict):
    def average(name):
        flat = "model_ema." + "".join(name.split(".")[1:])
        if flat not in state_dict:
            raise ValueError(f"no average of {name}, called {flat}")
        return state_dict[flat]

    return {
        name: average(name) if name.startswith("model.diffusion_model.") else tensor
        for name, tensor in state_dict.items()
    }


def load_weights(model, state_dict):
    own = dict(model.state_dict())
    missing, unexpected = own.keys() - state_dict.keys(), state_dict.keys() - own.keys()
    different = {n for n in own.keys() & state_dict.keys() if own[n].shape != state_dict[n].shape}
    complaints = [f"missing: {n}" for n in sorted(missing)] + [f"unexpected: {n}" for n in sorted(unexpected)]
    complaints += [f"shape of {n}: {tuple(state_dict[n].shape)}, not {tuple(own[n].shape)}" for n in sorted(different)]
    if complaints:
        raise ValueError("; ".join(complaints[:4]))
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state_dict.items()}, strict=True)
