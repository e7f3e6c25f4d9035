# bash completion of tarishi. It is loaded with this line, in ~/.bashrc for good:
#
#   source <(tarishi completion bash)

# What may stand behind words, flags behind words and "-", values behind a flag;
# "/" is a folder.
_tarishi_words() {
	case $1 in
@ROWS@
	*) return 1 ;;
	esac
}

_tarishi() {
	COMPREPLY=()
	local line=${COMP_LINE:0:COMP_POINT} typed last i command='' key words

	# Bash splits words at "=" and ":", which flags and names of settings have.
	read -ra typed <<<"$line"
	[[ $line == *[[:space:]] ]] && typed+=('')
	last=$((${#typed[@]} - 1))

	# Flags stand behind the words of a command.
	for ((i = 1; i < last; i++)); do
		[[ ${typed[i]} == -* ]] && break
		key=${command:+$command }${typed[i]}
		_tarishi_words "$key" >/dev/null || break
		command=$key
	done

	local cur=${typed[last]} prefix='' before=${typed[last - 1]}
	if [[ $cur == --*=* ]]; then
		prefix=${cur%%=*}= key="$command ${cur%%=*}" cur=${cur#*=}
	elif [[ $before == -* ]] && _tarishi_words "$command $before" >/dev/null; then
		key="$command $before"
	elif [[ $cur == -* ]]; then
		key="$command -"
	elif [[ -z $command && $last -gt 1 ]]; then
		return
	else
		key=$command
	fi
	words=$(_tarishi_words "$key") || return

	# What stands before the last "=" or ":" stays.
	local all=$prefix$cur cut='' part c
	for c in = :; do
		part=${all%"${all##*$c}"}
		[[ $COMP_WORDBREAKS == *$c* && ${#part} -gt ${#cut} ]] && cut=$part
	done
	local found=(-W "$words")
	if [[ $words == / ]]; then
		found=(-d)
		compopt -o filenames 2>/dev/null
	fi
	while IFS= read -r c; do
		c=$prefix$c
		COMPREPLY+=("${c#"$cut"}")
	done < <(compgen "${found[@]}" -- "$cur")
}

complete -F _tarishi tarishi
