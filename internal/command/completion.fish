# fish completion of tarishi. It is loaded with this line, for good as the file
# ~/.config/fish/completions/tarishi.fish:
#
#   tarishi completion fish | source

# Whether the words of the line are these. Flags stand behind them.
function __tarishi_at
	set -l command
	for word in (commandline -opc)[2..-1]
		if string match -q -- '-*' $word
			break
		end
		set -l next (string join ' ' -- $command $word)
		if not contains -- $next $__tarishi_commands
			break
		end
		set command $next
	end
	test "$command" = "$argv[1]"
end

complete -c tarishi -f
@ROWS@
