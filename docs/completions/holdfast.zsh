#compdef holdfast

autoload -U is-at-least

_holdfast() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_holdfast_commands" \
"*::: :->holdfast" \
&& ret=0
    case $state in
    (holdfast)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:holdfast-command-$line[1]:"
        case $line[1] in
            (serve)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(token)
_arguments "${_arguments_options[@]}" : \
'--email=[Whose token it is]:EMAIL:_default' \
'--expires=[How long it is good for\: 90s, 30m, 12h, 30d]:EXPIRES:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(import)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
'*::files -- The files; each becomes the table of its name:_files' \
&& ret=0
;;
(migrate-store)
_arguments "${_arguments_options[@]}" : \
'--verify-only[Move nothing; say whether both hold the same, as they do until a server has started on the database]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(ask)
_arguments "${_arguments_options[@]}" : \
'--thread=[The conversation it belongs to; questions of one conversation are answered one after the other]:NAME:_default' \
'(--sql --thread)--run=[Show the answer of a run that was asked for before, instead of asking]:ID:_default' \
'--server=[The server; without it the one of this directory]:URL:_default' \
'--token=[The token; better in the environment or in a file, since others see a process'\''s arguments]:TOKEN:_default' \
'--patience=[How long to try without a word from the server]:DURATION:_default' \
'--sql[The question is a statement in SQL, however it begins]' \
'--follow[Show each event of the run as a line]' \
'--json[Print the run as JSON, as the server gives it]' \
'-h[Print help]' \
'--help[Print help]' \
'::prompt -- The question, in words or in SQL; without one, or as `-`, it is read from standard input:_default' \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'--json[Print the findings as JSON]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_holdfast__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:holdfast-help-command-$line[1]:"
        case $line[1] in
            (serve)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(token)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(import)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(migrate-store)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(ask)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_holdfast_commands] )) ||
_holdfast_commands() {
    local commands; commands=(
'serve:Serve until a signal (the default)' \
'check:Print the configuration as it holds, and what is wrong with the store, the keys of tokens and the data that it names' \
'token:Make a token with the configured secret, or with the server'\''s own' \
'import:Add CSV files as tables; nothing of a file with a fault is added' \
'migrate-store:Move the runs and conversations from the SQLite file of a stopped server to the empty database of \`DATABASE_URL\`' \
'ask:Ask a server and wait for the answer, also through its restarts' \
'doctor:Look for what is wrong, or soon will be, and say what to do' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'holdfast commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__ask_commands] )) ||
_holdfast__subcmd__ask_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast ask commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__check_commands] )) ||
_holdfast__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast check commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__doctor_commands] )) ||
_holdfast__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast doctor commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help_commands] )) ||
_holdfast__subcmd__help_commands() {
    local commands; commands=(
'serve:Serve until a signal (the default)' \
'check:Print the configuration as it holds, and what is wrong with the store, the keys of tokens and the data that it names' \
'token:Make a token with the configured secret, or with the server'\''s own' \
'import:Add CSV files as tables; nothing of a file with a fault is added' \
'migrate-store:Move the runs and conversations from the SQLite file of a stopped server to the empty database of \`DATABASE_URL\`' \
'ask:Ask a server and wait for the answer, also through its restarts' \
'doctor:Look for what is wrong, or soon will be, and say what to do' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'holdfast help commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__ask_commands] )) ||
_holdfast__subcmd__help__subcmd__ask_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help ask commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__check_commands] )) ||
_holdfast__subcmd__help__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help check commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__doctor_commands] )) ||
_holdfast__subcmd__help__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help doctor commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__help_commands] )) ||
_holdfast__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help help commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__import_commands] )) ||
_holdfast__subcmd__help__subcmd__import_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help import commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__migrate-store_commands] )) ||
_holdfast__subcmd__help__subcmd__migrate-store_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help migrate-store commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__serve_commands] )) ||
_holdfast__subcmd__help__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help serve commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__help__subcmd__token_commands] )) ||
_holdfast__subcmd__help__subcmd__token_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast help token commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__import_commands] )) ||
_holdfast__subcmd__import_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast import commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__migrate-store_commands] )) ||
_holdfast__subcmd__migrate-store_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast migrate-store commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__serve_commands] )) ||
_holdfast__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast serve commands' commands "$@"
}
(( $+functions[_holdfast__subcmd__token_commands] )) ||
_holdfast__subcmd__token_commands() {
    local commands; commands=()
    _describe -t commands 'holdfast token commands' commands "$@"
}

if [ "$funcstack[1]" = "_holdfast" ]; then
    _holdfast "$@"
else
    compdef _holdfast holdfast
fi
