"""Train the network that docs/analyses.md shows, do all its analyses, and put their figures into docs/.

About three minutes on one core: ``python -m benchmarks.analysis_example FOLDER``; interrupted, it goes on where it was.
The numbers are in FOLDER/analysis; the sentences of the page are to be read again by a person.
"""

import io
import subprocess
import sys
from pathlib import Path

from PIL import Image  # matplotlib writes its PNG files with it

from vwm.files import write_atomically
from vwm.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
SETTINGS = ("model_params.T_delay=300", "training_params.num_iterations=3000", "training_params.keep_every=500")
FIGURES = {  # in docs/, analysis_<name>.png → in the run's folder of analyses
    "errors": "error_distribution_set_size",
    "signal_to_noise": "signal_to_noise",
    "normalisation": "normalisation",
    "selectivity": "mixed_selectivity",
    "tuning": "mixed_selectivity_tuning",
    "weights_matrices": "weights_matrices",
    "weights": "weights",
    "over_training": "over_training_mixed_selectivity",
    "trajectories": "fixed_points_trajectories",
    "memory": "fixed_points_memory",
}
WIDTH = 1400  # pixels; the analyses draw about twice as many


def main() -> None:
    place = Path(sys.argv[1])
    if not RunFolder(place).is_finished():
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        vwm("train", str(ROOT / "configs" / "quick.yaml"), *settings, "--out", str(place))
    vwm("analyse", str(place))
    vwm("analyse", str(place), "--over-training", "--only", "mixed_selectivity")
    for name, figure in FIGURES.items():
        write_atomically(ROOT / "docs" / f"analysis_{name}.png", smaller(place / "analysis" / f"{figure}.png"))


def vwm(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "vwm", *words], check=True)


def smaller(figure: Path) -> bytes:
    """A figure as a PNG file of ``WIDTH`` and 256 colours."""
    with Image.open(figure) as image:
        height = round(image.height * WIDTH / image.width)
        resized = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    # Which colours are kept does not depend on how often they are: a small legend has those of its panel.
    colours = resized.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    colours.save(content, format="PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    main()
