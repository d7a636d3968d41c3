# Sourced by the other scripts: `venv EXTRAS [FOLDER]` makes the virtual environment once and installs
# the project into it.  A stamp beside it says what is there, so that a second run installs nothing.

venv() {
  local extras=$1 folder=${2:-.venv} python=${PYTHON:-python3}
  local version constraints=()
  version=$("$python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
  # Pinned versions of both ends of the supported line; other interpreters take what the index has.
  if [[ -f constraints/$version.txt ]]; then constraints=(-c "constraints/$version.txt"); fi
  if [[ ! -x $folder/bin/python ]]; then "$python" -m venv "$folder"; fi
  local stamp=$folder/installed wanted
  wanted="$extras $(cat setup.cfg pyproject.toml "${constraints[@]:1}" | cksum)"
  if [[ -f $stamp ]] && grep -qxF "$wanted" "$stamp"; then return; fi
  echo "installing hulu_jax[$extras] into $folder (about a minute)"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${constraints[@]}" \
    --editable ".[$extras]"
  echo "$wanted" >>"$stamp"
}
