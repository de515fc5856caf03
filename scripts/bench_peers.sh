# Sourced by the bench scripts: environments of their own for the programs that are measured beside this one.
#   $peers      folder for all of it: $KVSWEEP_PEERS or build/peers
#   $python     the interpreter of the environment that peers_need made or found

peers=${KVSWEEP_PEERS:-build/peers}
mkdir -p "$peers"
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

# peers_need transformers|llama
peers_need() {
  local imports packages
  case $1 in
    transformers)
      imports="gguf, transformers, optimum.quanto, hqq"
      packages=(torch==2.11.0 transformers==5.2.0 gguf==0.19.0 optimum-quanto==0.2.7 hqq==0.2.8.post1 ninja)
      ;;
    llama)  # compiled from source, ten minutes on two cores
      imports="llama_cpp"
      packages=(llama-cpp-python==0.3.36)
      export CMAKE_ARGS=-DGGML_NATIVE=ON
      ;;
  esac
  python=$peers/$1/bin/python
  if ! [[ -x $python ]] || ! "$python" -c "import $imports" 2>/dev/null; then
    python3 -m venv "$peers/$1"
    "$python" -m pip install --quiet "${packages[@]}"
  fi
}

# The weights as a float32 Hugging Face folder, $peers/smollm2; with the environment `transformers`.
peers_need_model() {
  [[ -f $peers/smollm2/config.json ]] && return
  local models=${KVSWEEP_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/kvsweep/models}
  "$python" scripts/bench_peer.py convert "$models/SmolLM2-135M-Instruct.Q4_1.gguf" "$peers/smollm2.part"
  mv "$peers/smollm2.part" "$peers/smollm2"
}
