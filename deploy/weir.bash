# bash completion for weir                                  -*- shell-script -*-

_weir() {
    local cur prev words cword
    _init_completion -s || return
    local command=run i
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
            run | check | init | keys | ask | health | env | version)
                command=${words[i]}
                break
                ;;
        esac
    done
    case $prev in
        --config | --tls-cert | --tls-key | --ca)
            _filedir
            return
            ;;
        --log-level)
            mapfile -t COMPREPLY < <(compgen -W 'debug info warn error' -- "$cur")
            return
            ;;
        --log-format)
            mapfile -t COMPREPLY < <(compgen -W 'json text' -- "$cur")
            return
            ;;
        --listen | --backend | --api-key | --limit | --cache-ttl | --workers | --drain-timeout | --url | --key | --model | \
            --name | --timeout)
            return
            ;;
    esac
    if [[ $cur == -* ]]; then
        # What the command itself says, so that this list cannot grow old.
        local -a arguments=(--help)
        [[ $command == run ]] || arguments=("$command" --help)
        mapfile -t COMPREPLY < <(compgen -W "$("$1" "${arguments[@]}" 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')" -- "$cur")
        return
    fi
    case $command in
        check | init) _filedir ;;
        keys) mapfile -t COMPREPLY < <(compgen -W 'create hash' -- "$cur") ;;
        run)
            [[ $cword -ne 1 ]] ||
                mapfile -t COMPREPLY < <(compgen -W 'run check init keys ask health env version' -- "$cur")
            ;;
    esac
} &&
    complete -F _weir weir
