#compdef tarishi

# zsh completion of tarishi. It is loaded with this line, in ~/.zshrc behind
# compinit for good, or as the file _tarishi in a folder of $fpath:
#
#   source <(tarishi completion zsh)

# What may stand behind words, flags behind words and "-", values behind a flag;
# "/" is a folder.
_tarishi_entries() {
	case $1 in
@ROWS@
	*) return 1 ;;
	esac
}

_tarishi() {
	local command='' key i
	local -a entries

	# Flags stand behind the words of a command.
	for ((i = 2; i < CURRENT; i++)); do
		[[ $words[i] == -* ]] && break
		key=${command:+$command }$words[i]
		_tarishi_entries "$key" || break
		command=$key
	done

	local cur=$words[CURRENT] before=$words[CURRENT-1]
	if [[ $cur == --*=* ]]; then
		key="$command ${cur%%=*}"
		compset -P '*='
	elif [[ $before == -* ]] && _tarishi_entries "$command $before"; then
		key="$command $before"
	elif [[ $cur == -* ]]; then
		key="$command -"
	elif [[ -z $command && $CURRENT -gt 2 ]]; then
		return 1
	else
		key=$command
	fi
	_tarishi_entries "$key" || return 1
	if [[ $entries == / ]]; then
		_files -/
	else
		_describe tarishi entries
	fi
}

if [[ $funcstack[1] == _tarishi ]]; then
	_tarishi "$@"
else
	compdef _tarishi tarishi
fi
