"""``python -m crossfold_trainer.dataset SOURCE TARGET``: write a data set anew in the layout that is read fastest."""

import argparse
import sys

from pydantic import ValidationError

from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec, NonFinite, ScaleSpec
from crossfold_trainer.dataset.rewrite import rewrite
from crossfold_trainer.errors import ConfigError, StoreError

REFUSED = 2


def main(arguments: list[str] | None = None) -> int:
    """Parse, rewrite, and say what came of it."""
    given = _parser().parse_args(arguments)
    try:
        written = rewrite(
            DataSpec(
                uri=given.source,
                endpoint=given.endpoint,
                region=given.region,
                anonymous=given.anonymous,
                scale=None if given.scale is None else ScaleSpec(min=given.scale[0], max=given.scale[1]),
                non_finite=given.non_finite,
            ),
            ArtifactsSpec(uri=given.target, endpoint=given.target_endpoint, region=given.target_region),
            bands_apart=given.bands_apart,
            progress=_show if sys.stderr.isatty() else None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        sys.stderr.write(f"{'.'.join(map(str, first['loc']))}: {first['msg']}\n")
        return REFUSED
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    ratio = written.after / max(1, written.before)
    print(f"{given.target}: {written.patches} patches, {written.after / 1e6:.1f} MB, {ratio:.0%} of {given.source}")
    return 0


def _show(done: int, total: int) -> None:
    sys.stderr.write(f"\r{done}/{total} patches" + ("\n" if done == total else ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m crossfold_trainer.dataset", description=__doc__)
    parser.add_argument("source", help="data set in the darts layout: a folder or an s3://, gs:// or az:// URI")
    parser.add_argument("target", help="where to write it: a folder or a URI that holds no data set yet")
    parser.add_argument("--bands-apart", action="store_true", help="a chunk for each band, for searches over bands")
    parser.add_argument("--endpoint", default="", help="URL of the source's S3 server")
    parser.add_argument("--region", default="", help="region of the source's bucket")
    parser.add_argument("--anonymous", action="store_true", help="read the source without credentials")
    parser.add_argument("--scale", nargs=2, type=float, metavar=("MIN", "MAX"), help="values of x that become 0 and 1")
    parser.add_argument(
        "--non-finite",
        type=NonFinite,
        choices=list(NonFinite),
        default=NonFinite.ERROR,
        help="what is done about values that are NaN or infinite: Error, or Ignore (they become 0, their pixels"
        " ignored labels)",
    )
    parser.add_argument("--target-endpoint", default="", help="URL of the target's S3 server")
    parser.add_argument("--target-region", default="", help="region of the target's bucket")
    return parser


if __name__ == "__main__":
    sys.exit(main())
