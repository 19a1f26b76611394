#!/bin/bash
# Sourced at the end of a generated script:
#
#     source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
#
# Waits for every stage and sets internal_exec_status. Harmless are: 0; SIGPIPE (141) anywhere;
# 1 from grep, comm, diff and cmp, which only says "nothing found" or "they differ". Anything else
# is a failure that nobody downstream can see, since a dead stage looks like a clean end of file:
# it is named on stderr and becomes the status. So do the failure markers that our own components
# leave (docs/architecture.md). Uploads that wait for this script are then completed or aborted.
#
# Which command a pid was is read from bash's own job table, which keeps ended jobs and their text
# until somebody asks. Limit: a script that calls `jobs` or a bare `wait` itself loses that text;
# then a stage is named by its pid, and its status 1 counts as a failure.
#
# Once a stage has failed the others get PUNCH_FAILURE_GRACE seconds (default 30) to end by
# themselves; then they get SIGPIPE, and 5 s later SIGKILL: a stage that died before it opened its
# FIFO would leave its neighbours waiting for ever. This needs bash 5.1; older ones only wait.

__punch_state() {
    local stat
    if [[ -n ${PUNCH_STATE_DIR:-} ]]; then
        __punch_dir=$PUNCH_STATE_DIR
        return
    fi
    # The same name as punchlib.runtime.state: our pid and start time, since pids come again.
    read -r stat <"/proc/$$/stat"
    stat=${stat##*) }
    # shellcheck disable=SC2086  # split into fields on purpose
    set -- $stat
    __punch_dir=/tmp/.punch-$UID/$$-${20}
}

# Fills __punch_text[pid] with the command of each stage, and __punch_running[pid] where it runs.
# `jobs` must run in this very shell: a subshell's table has no ended jobs.
__punch_commands() {
    local line pid='' pattern='^(\[[0-9]+\][-+ ]| ) *([0-9]+) (.{24})(.*)$'
    jobs -l >"$__punch_dir/jobs" 2>/dev/null || return 0
    while IFS= read -r line; do
        if [[ $line =~ $pattern ]]; then
            pid=${BASH_REMATCH[2]}
            __punch_text[pid]=${BASH_REMATCH[4]}
            if [[ ${BASH_REMATCH[3]} == Running* ]]; then __punch_running[pid]=1; fi
        elif [[ -n $pid ]]; then
            __punch_text[pid]+=$'\n'$line
        fi
    done <"$__punch_dir/jobs"
}

# Does status 1 of this command only mean "nothing found" or "they differ"?
__punch_one_is_harmless() {
    local words word
    read -r -a words <<<"${1#| }" || true
    for word in "${words[@]}"; do
        case ${word##*/} in
            grep | egrep | fgrep | zgrep | comm | diff | cmp) return 0 ;;
            command | exec | env | nice | *=*) ;;
            *) return 1 ;;
        esac
    done
    return 1
}

# Judges one stage that has ended: __punch_ended PID STATUS
__punch_ended() {
    local pid=$1 status=$2 text=${__punch_text[$1]:-} how
    unset "__punch_left[$pid]"
    case $status in
        0 | 141) return ;;
        1) if __punch_one_is_harmless "$text"; then return; fi ;;
    esac
    how="ended with status $status"
    if ((status > 128)) && how=$(kill -l "$status" 2>/dev/null); then how="was killed by SIG$how"; fi
    text=${text% &}
    how="stage ${__punch_stage[$pid]} of $__punch_count (pid $pid) ${how:-ended with status $status}"
    how+=": ${text:-its command is not known}"
    printf 'wait: %s\n' "$how" >&2
    if [[ -z $__punch_first ]]; then
        __punch_first=$how
        # Markers are read in the order of their names, which begin with nanoseconds.
        __punch_first_at=${EPOCHREALTIME:-9}
        __punch_first_at=${__punch_first_at/[.,]/}000
    fi
    # The status of the first stage launched counts before any other.
    if ((internal_exec_status == 0 || pid == __punch_last)); then internal_exec_status=$status; fi
}

# Sends a signal to every stage that is left.
__punch_kill() {
    local pid
    for pid in "${!__punch_left[@]}"; do
        printf 'wait: stage %s (pid %s) is still there after the failure; sending SIG%s: %s\n' \
            "${__punch_stage[$pid]}" "$pid" "$1" "${__punch_text[$pid]:-its command is not known}" >&2
        kill -s "$1" "$pid" 2>/dev/null || true
    done
}

# Judges every stage of which bash already knows that it has ended.
__punch_sweep() {
    local pid status
    for pid in "${!__punch_left[@]}"; do
        if [[ -n ${1:-} ]] || ! kill -0 "$pid" 2>/dev/null; then
            status=0
            wait "$pid" 2>/dev/null || status=$?
            __punch_ended "$pid" "$status"
        fi
    done
}

__punch_wait() {
    local pid status timer='' failing='' signal=PIPE grace=${PUNCH_FAILURE_GRACE:-30}
    if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
        __punch_sweep all
        return
    fi
    for pid in "${!__punch_left[@]}"; do
        if [[ -z ${__punch_running[$pid]:-} ]]; then
            status=0
            wait "$pid" 2>/dev/null || status=$?
            __punch_ended "$pid" "$status"
        fi
    done
    while ((${#__punch_left[@]})); do
        # `wait -n` forgets a stage that is killed between two calls, so it never waits alone:
        # the timer ends it now and then, and the sweep finds what was forgotten.
        if [[ -z $failing && $internal_exec_status != 0 ]]; then
            failing=1
            __punch_stop_timer
        fi
        if [[ -z $timer ]]; then
            sleep "$([[ -n $failing ]] && echo "$grace" || echo 5)" >/dev/null 2>&1 &
            timer=$!
        fi
        pid='' status=0
        wait -n -p pid "${!__punch_left[@]}" "$timer" 2>/dev/null || status=$?
        if [[ -n $pid && $pid != "$timer" ]]; then __punch_ended "$pid" "$status"; fi
        __punch_sweep
        if [[ -z $pid || $pid == "$timer" ]]; then
            __punch_stop_timer
            if [[ -n $failing ]]; then
                __punch_kill "$signal"
                signal=KILL grace=5
            fi
        fi
    done
    __punch_stop_timer
}

# Ends the timer of __punch_wait.
__punch_stop_timer() {
    if [[ -n $timer ]]; then
        kill "$timer" 2>/dev/null || true
        wait "$timer" 2>/dev/null || true
        timer=''
    fi
}

# Ends what began in two steps: completes pending uploads, or aborts them.
__punch_settle() {
    local marker text verb=complete
    local pattern='"component": "([^"]*)", "reason": "(([^"\\]|\\[^n])*)'
    for marker in "$__punch_dir"/failures/*.json; do
        [[ -e $marker ]] || continue
        text=$(<"$marker")
        # The first line of the reason: all of it stands above, in the component's own words.
        if [[ $text =~ $pattern ]]; then text="${BASH_REMATCH[1]}: ${BASH_REMATCH[2]}"; fi
        printf 'wait: a component failed: %s\n' "$text" >&2
        if ((internal_exec_status == 0)); then internal_exec_status=1; fi
    done
    # Whoever reads the markers learns of a stage that is no component of ours, such as sort.
    if [[ -n $__punch_first && -n ${PUNCH_STATE_DIR:-} ]]; then
        text=${__punch_first:0:300}
        text=${text//\\/\\\\}
        text=${text//\"/\\\"}
        mkdir -p -- "$__punch_dir/failures"
        printf '{"component": "wait", "reason": "%s"}\n' "${text//[[:cntrl:]]/ }" \
            >"$__punch_dir/failures/$__punch_first_at-$$.json"
    fi
    if [[ -z ${PUNCH_COMMIT:-} ]] && compgen -G "$__punch_dir/pending/*.json" >/dev/null; then
        if ((internal_exec_status)); then verb=abort; fi
        "${BASH_SOURCE[0]%/*}/punch-commit" "$verb" "$__punch_dir" || internal_exec_status=1
    fi
    # A folder that we named ourselves is ours to remove.
    if [[ -z ${PUNCH_STATE_DIR:-} ]]; then rm -rf -- "$__punch_dir"; fi
}

__punch_main() {
    local -a __punch_text=() __punch_running=() __punch_left=() __punch_stage=()
    local __punch_first='' __punch_first_at=''
    local __punch_dir __punch_count=$# __punch_last=${!#} pid
    local n=$#
    ((n)) || __punch_last=
    __punch_state
    # Whoever finishes an upload from here on leaves it to us.
    (umask 077 && mkdir -p -- "$__punch_dir" && : >"$__punch_dir/waiting") || true
    __punch_commands
    for pid; do
        __punch_left[pid]=1
        __punch_stage[pid]=$n
        n=$((n - 1))
    done
    __punch_wait
    __punch_settle
}

internal_exec_status=0
__punch_main "$@"
unset -f __punch_state __punch_commands __punch_one_is_harmless __punch_ended __punch_kill \
    __punch_wait __punch_sweep __punch_stop_timer __punch_settle __punch_main
