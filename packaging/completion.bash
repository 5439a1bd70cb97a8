
# Names of paths have colons, at which readline begins a new word (COMP_WORDBREAKS). The words are put together again, and
# what stands before the last colon is taken off what was found, since readline replaces only what follows it.
_mpio_whole_words() {
    local -a whole=()
    local -i index place=0
    local rest="${COMP_LINE}" word gap
    for ((index = 0; index < ${#COMP_WORDS[@]}; index++)); do
        word="${COMP_WORDS[index]}"
        gap="${rest%%"${word}"*}"
        [[ -z "${word}" && "${rest}" == [[:space:]]* ]] && gap=' '
        rest="${rest:${#gap} + ${#word}}"
        if ((index > 0)) && [[ -z "${gap}" && ("${word}" == :* || "${COMP_WORDS[index - 1]}" == *:) ]]; then
            whole[${#whole[@]} - 1]+="${word}"
        else
            whole+=("${word}")
        fi
        ((index == COMP_CWORD)) && place=$((${#whole[@]} - 1))
    done
    local -a COMP_WORDS=("${whole[@]}")
    local -i COMP_CWORD=${place}
    local typed="${COMP_WORDS[place]}"
    _mpio "${1}" "${typed}" "${COMP_WORDS[place - 1]}"
    local before="${typed%"${typed##*:}"}"
    if [[ "${COMPREPLY[*]}" == *:* ]]; then
        # No file's name: its colons need no backslash.
        compopt +o filenames 2>/dev/null
        [[ -n "${before}" && "${COMP_WORDBREAKS}" == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${before}"}")
    fi
    return 0
}
complete -o filenames -F _mpio_whole_words mpio
