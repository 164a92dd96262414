"""torch's own strict check, on a copy; averages chosen name by name."""

import copy


def select_ema(state_dict):
    def chosen(name):
        if not name.startswith(PREFIXES["unet"]):
            return name
        average = "model_ema." + name[len("model.") :].replace(".", "")
        if average not in state_dict:
            raise ValueError(f"no {average}")
        return average

    return {name: state_dict[chosen(name)] for name in state_dict}


def load_weights(model, state_dict):
    try:
        copy.deepcopy(model).load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(str(error)[:1000]) from None
    model.load_state_dict(state_dict)
