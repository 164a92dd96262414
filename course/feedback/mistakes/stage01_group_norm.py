"""Mistakes of stage 1."""

from course.feedback.mistakes import Mistake

MISTAKES = [
    Mistake(
        "only-float16-converted",
        "precise = x.to(torch.promote_types(x.dtype, torch.float32))",
        "precise = x.float() if x.dtype == torch.float16 else x",
        "bfloat16 is not converted to float32. It has the range of float32, but too few digits for sums and "
        "differences.",
    ),
    Mistake(
        "converted-back-before-the-weight",
        "        normalised = normalised * weight.reshape(per_channel)\n",
        "        normalised = normalised.to(x.dtype) * weight.reshape(per_channel)\n",
        "the result is converted back before weight and bias are applied. Then it is rounded two or three times; "
        "convert "
        "at the very end.",
    ),
    Mistake(
        "weight-and-bias-of-the-first-call",
        "        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)",
        """\
        if not hasattr(self, "kept"):
            self.kept = self.weight.detach().clone(), self.bias.detach().clone()
        return group_norm(x, self.num_groups, *self.kept, self.eps)""",
        "the layer keeps the weight and the bias of its first call. What is loaded or trained later has no effect "
        "then.",
    ),
    Mistake(
        "variance-divided-by-n-minus-1",
        "unbiased=False",
        "unbiased=True",
        "the variance divides by n - 1. torch's var and std do that unless told otherwise; a normalisation divides by "
        "n.",
    ),
    Mistake(
        "eps-outside-the-root",
        "torch.sqrt(variance + eps)",
        "(torch.sqrt(variance) + eps)",
        "eps is added to the standard deviation, after the square root. It belongs to the variance, inside of the "
        "root.",
    ),
    Mistake(
        "eps-forgotten",
        "torch.sqrt(variance + eps)",
        "torch.sqrt(variance)",
        "eps is left out. A picture of one colour then divides zero by zero.",
    ),
    Mistake(
        "eps-squared",
        "torch.sqrt(variance + eps)",
        "torch.sqrt(variance + eps**2)",
        "the square of eps is added to the variance. eps itself is added.",
    ),
    Mistake(
        "divided-by-the-variance",
        "torch.sqrt(variance + eps)",
        "(variance + eps)",
        "the difference is divided by the variance. The standard deviation, its square root, has the unit of x.",
    ),
    Mistake(
        "multiplied-by-the-deviation",
        "(groups - mean) / torch.sqrt",
        "(groups - mean) * torch.sqrt",
        "the difference is multiplied by the standard deviation. Dividing by it is what brings the deviation to one.",
    ),
    Mistake(
        "brackets-around-the-difference-missing",
        "((groups - mean) / torch.sqrt(variance + eps))",
        "(groups - mean / torch.sqrt(variance + eps))",
        "only the mean is divided by the standard deviation. The difference of x and mean needs brackets.",
    ),
    Mistake(
        "mean-not-subtracted",
        "(groups - mean)",
        "groups",
        "the mean is not subtracted. The result then has the standard deviation one, but not the mean zero.",
    ),
    Mistake(
        "root-mean-square",
        "variance = groups.var(dim=-1, keepdim=True, unbiased=False)",
        "variance = groups.square().mean(dim=-1, keepdim=True)",
        "the mean of the squares takes the place of the variance. The variance is measured around the mean.",
    ),
    Mistake(
        "mean-of-absolute-differences",
        "groups.var(dim=-1, keepdim=True, unbiased=False)",
        "(groups - mean).abs().mean(dim=-1, keepdim=True) ** 2",
        "the deviation is the mean absolute difference. The standard deviation squares the differences first.",
    ),
    Mistake(
        "interleaved-groups",
        """\
    groups = precise.reshape(batch, num_groups, -1)  # (B, G, C/G * H * W)
    mean = groups.mean(dim=-1, keepdim=True)
    variance = groups.var(dim=-1, keepdim=True, unbiased=False)
    normalised""",
        """\
    groups = precise.reshape(batch, channels // num_groups, num_groups, -1)
    mean = groups.mean(dim=(1, 3), keepdim=True)
    variance = groups.var(dim=(1, 3), keepdim=True, unbiased=False)
    normalised""",
        "channel c goes to group c % num_groups. The groups are runs of neighbouring channels.",
    ),
    Mistake(
        "instance-norm",
        "groups = precise.reshape(batch, num_groups, -1)",
        "groups = precise.reshape(batch, channels, -1)",
        "every channel is normalised alone. That is instance norm; here the channels of a group share mean and "
        "variance.",
    ),
    Mistake(
        "one-group",
        "groups = precise.reshape(batch, num_groups, -1)",
        "groups = precise.reshape(batch, 1, -1)",
        "all channels are normalised together. That is layer norm; num_groups is not used.",
    ),
    Mistake(
        "groups-and-channels-per-group-swapped",
        "groups = precise.reshape(batch, num_groups, -1)",
        "groups = precise.reshape(batch, channels // num_groups, -1)",
        "there are channels / num_groups groups. num_groups is the number of groups, not the size of one.",
    ),
    Mistake(
        "statistics-over-the-batch-too",
        """\
    mean = groups.mean(dim=-1, keepdim=True)
    variance = groups.var(dim=-1, keepdim=True, unbiased=False)""",
        """\
    mean = groups.mean(dim=(0, -1), keepdim=True)
    variance = groups.var(dim=(0, -1), keepdim=True, unbiased=False)""",
        "mean and variance are taken over the whole batch. Each sample is normalised by itself.",
    ),
    Mistake(
        "mean-of-the-whole-sample",
        "mean = groups.mean(dim=-1, keepdim=True)",
        "mean = groups.mean(dim=(1, 2), keepdim=True)",
        "one mean is subtracted from all groups of a sample. Each group has its own.",
    ),
    Mistake(
        "deviation-of-the-whole-sample",
        "groups.var(dim=-1, keepdim=True, unbiased=False)",
        "groups.var(dim=(1, 2), keepdim=True, unbiased=False)",
        "all groups of a sample are divided by one standard deviation. Each group has its own.",
    ),
    Mistake(
        "mean-square-minus-squared-mean",
        "groups.var(dim=-1, keepdim=True, unbiased=False)",
        "(groups * groups).mean(dim=-1, keepdim=True) - mean * mean",
        "the variance is the mean of the squares minus the square of the mean. On paper that is the same; in floating "
        "point, two large and nearly equal numbers cancel. Subtract the mean before squaring.",
    ),
    Mistake(
        "half-precision-not-converted",
        "precise = x.to(torch.promote_types(x.dtype, torch.float32))",
        "precise = x",
        "half precision is normalised in half precision. In float16 the squares overflow, in bfloat16 digits are lost: "
        "convert to float32 first.",
    ),
    Mistake(
        "everything-in-float32",
        "x.to(torch.promote_types(x.dtype, torch.float32))",
        "x.to(torch.float32)",
        "float64 input is converted to float32 too. Only float16 and bfloat16 are.",
    ),
    Mistake(
        "not-converted-back",
        "return normalised.to(x.dtype)",
        "return normalised",
        "the result stays in float32. It should have the dtype of x.",
    ),
    Mistake(
        "weight-forgotten",
        "normalised = normalised * weight.reshape(per_channel)",
        "pass",
        "the weight is not used. With fresh weights, all ones, nobody would notice.",
    ),
    Mistake(
        "bias-forgotten",
        "normalised = normalised + bias.reshape(per_channel)",
        "pass",
        "the bias is not used. With a fresh bias, all zeros, nobody would notice.",
    ),
    Mistake(
        "bias-without-weight-ignored",
        "    if bias is not None:",
        "    if weight is not None and bias is not None:",
        "a bias counts only if there is a weight too. Each of them can be given alone.",
    ),
    Mistake(
        "weight-without-bias-ignored",
        "    if weight is not None:",
        "    if weight is not None and bias is not None:",
        "a weight counts only if there is a bias too. Each of them can be given alone.",
    ),
    Mistake(
        "bias-before-weight",
        """\
    if weight is not None:
        normalised = normalised * weight.reshape(per_channel)
    if bias is not None:
        normalised = normalised + bias.reshape(per_channel)
""",
        """\
    if bias is not None:
        normalised = normalised + bias.reshape(per_channel)
    if weight is not None:
        normalised = normalised * weight.reshape(per_channel)
""",
        "the bias is added before the weight multiplies. It is scaled then; it should come last.",
    ),
    Mistake(
        "weight-and-bias-exchanged",
        "return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)",
        "return group_norm(x, self.num_groups, self.bias, self.weight, self.eps)",
        "weight and bias change places. The weight multiplies, the bias is added.",
    ),
    Mistake(
        "weight-divides",
        "normalised * weight.reshape(per_channel)",
        "normalised / weight.reshape(per_channel)",
        "the weight divides. It is a factor.",
    ),
    Mistake(
        "weight-per-column",
        "normalised * weight.reshape(per_channel)",
        "normalised * weight",
        "the weight is multiplied as it is. Broadcasting lines it up with the last dimension, the columns of the "
        "picture.",
    ),
    Mistake(
        "bias-per-column",
        "normalised + bias.reshape(per_channel)",
        "normalised + bias",
        "the bias is added as it is. Broadcasting lines it up with the last dimension, the columns of the picture.",
    ),
    Mistake(
        "pictures-only",
        "(1, channels) + (1,) * (x.ndim - 2)",
        "(1, channels, 1, 1)",
        "weight and bias always get four dimensions. x may have any number of them after the channels, also none.",
    ),
    Mistake(
        "view-in-place-of-reshape",
        "precise.reshape(batch, num_groups, -1)",
        "precise.view(batch, num_groups, -1)",
        "view is called on a tensor whose numbers are not contiguous in memory. reshape copies where it must.",
    ),
    Mistake(
        "any-number-of-groups",
        "    if channels % num_groups != 0:",
        "    if num_groups <= 0:",
        "nothing checks that num_groups divides the number of channels. It is a ValueError if it does not.",
    ),
    Mistake(
        "assert-for-the-exception",
        'raise ValueError(f"num_groups={num_groups} does not divide {channels} channels")',
        "raise AssertionError",
        "an assert checks that num_groups divides the number of channels. It has to be a ValueError: `python -O` skips "
        "asserts.",
    ),
    Mistake(
        "statistics-without-gradient",
        """\
    mean = groups.mean(dim=-1, keepdim=True)
    variance = groups.var(dim=-1, keepdim=True, unbiased=False)""",
        """\
    mean = groups.mean(dim=-1, keepdim=True).detach()
    variance = groups.var(dim=-1, keepdim=True, unbiased=False).detach()""",
        "mean and variance are treated as constants in the gradient. They depend on x, so the gradient flows through "
        "them.",
    ),
    Mistake(
        "default-eps-of-the-function",
        "bias: Tensor | None = None, eps: float = 1e-5",
        "bias: Tensor | None = None, eps: float = 1e-6",
        "group_norm takes eps=1e-6 where none is given. Its default is 1e-5.",
    ),
    Mistake(
        "default-eps-of-the-layer",
        "num_channels: int, eps: float = 1e-5",
        "num_channels: int, eps: float = 1e-6",
        "GroupNorm takes eps=1e-6 where none is given. Its default is 1e-5.",
    ),
    Mistake(
        "layer-without-init",
        "        super().__init__()\n",
        "",
        "__init__ does not call super().__init__() first. nn.Module cannot keep parameters before that.",
    ),
    Mistake(
        "layer-keeps-eps-to-itself",
        "self.weight, self.bias, self.eps)",
        "self.weight, self.bias)",
        "the layer does not hand its eps on. group_norm then uses its own default.",
    ),
    Mistake(
        "layer-with-32-groups",
        "self.num_groups = num_groups",
        "self.num_groups = 32",
        "the layer always makes 32 groups. Use the number that it was given.",
    ),
    Mistake(
        "weight-starts-as-zeros",
        "nn.Parameter(torch.ones(num_channels))",
        "nn.Parameter(torch.zeros(num_channels))",
        "the weight starts as zeros. A fresh layer should scale by one.",
    ),
    Mistake(
        "weight-starts-at-random",
        "nn.Parameter(torch.ones(num_channels))",
        "nn.Parameter(torch.randn(num_channels))",
        "the weight starts with random numbers. A fresh layer should scale by one.",
    ),
    Mistake(
        "bias-starts-as-ones",
        "nn.Parameter(torch.zeros(num_channels))",
        "nn.Parameter(torch.ones(num_channels))",
        "the bias starts as ones. A fresh layer should add nothing.",
    ),
    Mistake(
        "weight-is-no-parameter",
        "self.weight = nn.Parameter(torch.ones(num_channels))",
        "self.weight = torch.ones(num_channels)",
        "the weight is a plain tensor. Only an nn.Parameter is trained, saved and moved to a GPU.",
    ),
    Mistake(
        "input-changed-in-place",
        "(groups - mean) / torch.sqrt",
        "groups.sub_(mean) / torch.sqrt",
        "the mean is subtracted in place. reshape may return a view of x, so the caller's tensor changes too.",
    ),
    Mistake(
        "layer-in-float64",
        "return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)",
        "return group_norm(x.double(), self.num_groups, self.weight, self.bias, self.eps)",
        "the layer converts x to float64 and does not convert back. The result has the dtype of x.",
    ),
    Mistake(
        "layer-stays-in-float32",
        "return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)",
        "y = group_norm(x, self.num_groups, self.weight, self.bias, self.eps)\n"
        "        return y.to(torch.promote_types(x.dtype, torch.float32))",
        "the layer's result is float32 where x is float16 or bfloat16. It has the dtype of x.",
    ),
    Mistake(
        "eps-on-the-processor",
        "torch.sqrt(variance + eps)",
        "torch.sqrt(variance + torch.full((1,), eps, dtype=variance.dtype))",
        "eps is made a tensor of the processor. On a GPU that does not go together with x; a number of Python goes "
        "with everything.",
    ),
    Mistake(
        "computed-in-float64",
        "precise = x.to(torch.promote_types(x.dtype, torch.float32))",
        "precise = x.double()",
        "everything is computed in float64, also for float32. Apple's GPUs have no float64.",
    ),
]
