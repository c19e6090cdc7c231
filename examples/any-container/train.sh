#!/bin/sh
# A trainer in shell and awk: JSON in, one line of JSON out. It smooths y = sin(x) + noise with a Gaussian kernel and
# reports the error on the fold that is held out.
set -eu
field() { printf '%s' "$CROSSFOLD_CONFIG" | sed -n "s/.*\"$1\":\"\{0,1\}\([-0-9a-f.]*\).*/\1/p"; }

rmse=$(awk -v fold="$(field fold)" -v folds="$(field folds)" -v seed="$(field seed)" -v width="$(field x-bandwidth)" '
  BEGIN {
    if (width <= 0) { exit 78 }  # a wrong configuration: trying again would not help
    srand(seed)
    for (i = 0; i < 200; i++) { x[i] = i / 20; y[i] = sin(x[i]) + 0.4 * (rand() - 0.5); part[i] = int(rand() * folds) }
    for (i = 0; i < 200; i++) if (part[i] == fold) {
      up = down = 0
      for (j = 0; j < 200; j++) if (part[j] != fold) {
        w = exp(-((x[i] - x[j]) / width) ^ 2); up += w * y[j]; down += w
      }
      n++; sum += (down > 0 ? up / down - y[i] : y[i]) ^ 2
    }
    printf "%.6f", sqrt(sum / n)
  }')
echo "fold $(field fold), seed $(field seed): RMSE $rmse"
printf '{"result":{"digest":"%s","values":{"val/RMSE":%s}}}\n' "$(field digest)" "$rmse" \
  > "${CROSSFOLD_TERMINATION_LOG:-/dev/termination-log}"
