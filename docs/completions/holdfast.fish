# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_holdfast_global_optspecs
    string join \n h/help V/version
end

function __fish_holdfast_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_holdfast_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_holdfast_using_subcommand
    set -l cmd (__fish_holdfast_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c holdfast -n "__fish_holdfast_needs_command" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_needs_command" -s V -l version -d 'Print version'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "serve" -d 'Serve until a signal (the default)'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "check" -d 'Print the configuration as it holds, and what is wrong with the store, the keys of tokens and the data that it names'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "token" -d 'Make a token with the configured secret, or with the server\'s own'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "import" -d 'Add CSV files as tables; nothing of a file with a fault is added'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "migrate-store" -d 'Move the runs and conversations from the SQLite file of a stopped server to the empty database of `DATABASE_URL`'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "ask" -d 'Ask a server and wait for the answer, also through its restarts'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "doctor" -d 'Look for what is wrong, or soon will be, and say what to do'
complete -c holdfast -n "__fish_holdfast_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c holdfast -n "__fish_holdfast_using_subcommand serve" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand check" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand token" -l email -d 'Whose token it is' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand token" -l expires -d 'How long it is good for: 90s, 30m, 12h, 30d' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand token" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand import" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand migrate-store" -l verify-only -d 'Move nothing; say whether both hold the same, as they do until a server has started on the database'
complete -c holdfast -n "__fish_holdfast_using_subcommand migrate-store" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l thread -d 'The conversation it belongs to; questions of one conversation are answered one after the other' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l run -d 'Show the answer of a run that was asked for before, instead of asking' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l server -d 'The server; without it the one of this directory' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l token -d 'The token; better in the environment or in a file, since others see a process\'s arguments' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l patience -d 'How long to try without a word from the server' -r
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l sql -d 'The question is a statement in SQL, however it begins'
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l follow -d 'Show each event of the run as a line'
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -l json -d 'Print the run as JSON, as the server gives it'
complete -c holdfast -n "__fish_holdfast_using_subcommand ask" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand doctor" -l json -d 'Print the findings as JSON'
complete -c holdfast -n "__fish_holdfast_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "serve" -d 'Serve until a signal (the default)'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "check" -d 'Print the configuration as it holds, and what is wrong with the store, the keys of tokens and the data that it names'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "token" -d 'Make a token with the configured secret, or with the server\'s own'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "import" -d 'Add CSV files as tables; nothing of a file with a fault is added'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "migrate-store" -d 'Move the runs and conversations from the SQLite file of a stopped server to the empty database of `DATABASE_URL`'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "ask" -d 'Ask a server and wait for the answer, also through its restarts'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "doctor" -d 'Look for what is wrong, or soon will be, and say what to do'
complete -c holdfast -n "__fish_holdfast_using_subcommand help; and not __fish_seen_subcommand_from serve check token import migrate-store ask doctor help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
