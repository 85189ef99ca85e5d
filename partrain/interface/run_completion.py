"""How shells complete the arguments RUN and SWEEP: the names of runs and sweeps, `last`, and directories; or files.

The functions look for run.json and sweep.json in the subdirectories of the directory of runs, which is that of
`--runs-dir`, or of the environment. They start no program, because a shell waits for them.
"""

from __future__ import annotations

from partrain.store.run_lookup import RUNS_DIR_VARIABLE
from partrain.store.run_paths import RUN_FILE
from partrain.store.sweep_paths import SWEEP_FILE

# shtab completes words of a function with `_dir` in its name as file names: quoted, and with / after a directory.
_BASH = """
_partrain_dirs_and_runs() {
  local runs="${@VARIABLE@:-runs}" number path
  for ((number = 1; number < COMP_CWORD; number++)); do
    [[ "${COMP_WORDS[number]}" == --runs-dir ]] && runs="${COMP_WORDS[number + 1]}"
  done
  for path in "${runs/#\\~/$HOME}"/*/{@RUN@,@SWEEP@}; do
    [[ -e "$path" ]] || continue
    path="${path%/*}"
    [[ "${path##*/}" == "$1"* ]] && printf '%s\\n' "${path##*/}"
  done
  compgen -W last -- "$1"
  compgen -d -- "$1"
}
_partrain_dirs_runs_and_files() {
  _partrain_dirs_and_runs "$1"
  compgen -f -- "$1"
}
"""

_ZSH = """
_partrain_runs() {
  local -a typed=(${(z)LBUFFER}) names expl  # of $words, shtab's script takes options away
  local runs=${@VARIABLE@:-runs} number=${typed[(I)--runs-dir]}
  ((number)) && runs=${(Q)typed[number + 1]}
  names=(${runs/#\\~/$HOME}/*/(@RUN@|@SWEEP@)(NOn:h:t) last)
  _wanted -V runs expl run compadd -a names
  _files -/
}
_partrain_runs_and_files() {
  _partrain_runs
  _files
}
"""

_FISH = """
function _partrain_runs
    set -l runs runs
    set -q @VARIABLE@; and test -n "$@VARIABLE@"; and set runs $@VARIABLE@
    set -l words (commandline -opc)
    for number in (seq (count $words))
        if test "$words[$number]" = --runs-dir
            set runs $words[(math $number + 1)]
        else if string match -q -- '--runs-dir=*' $words[$number]
            set runs (string replace -- --runs-dir= '' $words[$number])
        end
    end
    set runs (string replace -r '^~' $HOME -- $runs)
    set -l names
    for path in $runs/*/{@RUN@,@SWEEP@}
        set -p names (string split / -- $path)[-2]
    end
    printf '%s\\n' $names last
    __fish_complete_directories (commandline -ct)
end
function _partrain_runs_and_files
    _partrain_runs
    __fish_complete_path (commandline -ct)
end
"""

# As shtab takes them: the function that completes a value, and the definitions.
RUN_COMPLETION = {"bash": "_partrain_dirs_and_runs", "zsh": "_partrain_runs", "fish": "(_partrain_runs)"}
RUN_OR_FILE_COMPLETION = {
    "bash": "_partrain_dirs_runs_and_files",
    "zsh": "_partrain_runs_and_files",
    "fish": "(_partrain_runs_and_files)",
}
FUNCTIONS = {
    shell: text.replace("@VARIABLE@", RUNS_DIR_VARIABLE).replace("@RUN@", RUN_FILE).replace("@SWEEP@", SWEEP_FILE)
    for shell, text in (("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH))
}
