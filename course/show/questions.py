"""What is asked before `make show` draws: by the number of the stage a question, and which of its answers is right."""

from course.studio.question import Question

QUESTIONS = {
    1: (
        Question(
            "Some channels are much stronger than others. After which norm can one not tell any more which they were?",
            ("one group for all channels", "a few groups", "one group per channel"),
        ),
        2,
    ),
    2: (
        Question(
            "Forty blocks without residual connections and without norms: how large is the gradient at the first one?",
            ("about as large as at the last", "some ten times smaller", "many powers of ten smaller"),
        ),
        2,
    ),
    3: (
        Question(
            "A picture looks at 77 tokens: two marks, the prompt's and padding. Does the small model use the padding?",
            ("no: padding is empty", "a little, below 5 % of its attention", "yes, a large part goes there"),
        ),
        2,
    ),
    4: (
        Question(
            "Flat grey goes through a transposed convolution with kernel 3 and stride 2. What comes out?",
            ("flat grey", "a checkerboard", "stripes in one direction"),
        ),
        1,
    ),
    5: (
        Question(
            "A picture becomes latents. What do they look like?",
            ("like noise", "like a small picture in strange colours", "like nothing that one could recognise"),
        ),
        1,
    ),
    6: (
        Question(
            "To 'a red house in the snow', which is nearer for a text encoder that was trained with pictures?",
            ("'a red car in the snow'", "'a red house on a snowy hill'", "both alike"),
        ),
        1,
    ),
    7: (
        Question(
            "At t = 999 there is nearly nothing but noise. What does the U-Net guess the picture to be?",
            ("noise", "something sharp", "a blur: the average of much that the prompt allows"),
        ),
        2,
    ),
    8: (
        Question(
            "Half way, at t = 500, how much of the variance is still the picture's?",
            ("about a quarter", "about a half", "about three quarters"),
        ),
        0,
    ),
    9: (
        Question(
            "From the same noise and prompt, which sampler arrives at another picture than the other three?",
            ("DDIM", "DDPM", "Euler", "DPM-Solver++"),
        ),
        1,
    ),
    10: (
        Question(
            "The U-Net of Stable Diffusion 1.5 has 686 tensors. How many of them share their shape with another?",
            ("hardly any", "about a half", "nearly all"),
        ),
        2,
    ),
    11: (
        Question(
            "At which timesteps is the squared error of the predicted noise the largest?",
            ("at the first, with hardly any noise", "in the middle", "at the last, with nearly nothing but noise"),
        ),
        0,
    ),
    12: (
        Question(
            "A change of 160 x 160 weights is replaced by the best one of rank 4. How many of its numbers are left?",
            ("about 5 %", "about a quarter", "all of them: a product has as many"),
        ),
        0,
    ),
    13: (
        Question(
            "Each frame of a film gets a row of sines and cosines. How do the rows of two neighbours differ?",
            ("in all channels alike", "in the fast channels; the slow ones are nearly equal", "not at all"),
        ),
        1,
    ),
}
