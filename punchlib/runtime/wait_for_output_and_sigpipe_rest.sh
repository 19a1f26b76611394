#!/bin/bash
# Sourced at the end of a generated script:
#
#     source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
#
# Waits for every stage and sets internal_exec_status. Harmless are: 0; SIGPIPE (141) anywhere;
# 1 from grep, comm, diff and cmp, which only says "nothing found" or "they differ". Anything else
# is a failure that nobody downstream can see, since a dead stage looks like a clean end of file:
# it is named on stderr and becomes the status. So do the failure markers that our own components
# leave (docs/runtime.md). Uploads that wait for this script are then completed or aborted.
#
# Each stage is judged as it ends, and the verdict stands in the state folder at once: a sender
# of this script waits for it before it says END (punchlib/runtime/verdicts.py). A verdict is an empty
# file; what cannot even be named there is said by the folder's sticky bit.
#
# Which command a pid was is read from bash's own job table, which keeps ended jobs and their text
# until somebody asks. Limit: a script that calls `jobs` or a bare `wait` itself loses that text;
# then a stage is named by its pid, and its status 1 counts as a failure.
#
# Once a stage has failed the others get PUNCH_FAILURE_GRACE seconds (default 30) to end by
# themselves; then they get SIGPIPE, and 5 s later SIGKILL: a stage that died before it opened its
# FIFO would leave its neighbours waiting for ever. This needs bash 5.1; older ones only wait.
#
# It runs in a shell that is not ours. So nothing here depends on IFS (no `read`, no unquoted
# expansion), no word can be an alias or a function (`builtin` in front of all), all names begin
# with __punch, and options are put back at the end. The status is a failure until every stage has
# been judged: whatever goes wrong on the way stays one.

internal_exec_status=1
__punch_before=$-:$SHELLOPTS:$BASHOPTS:
\builtin set +abefkuvxCEHT +o posix
\builtin shopt -u expand_aliases failglob nullglob nocasematch nocaseglob extdebug

# Sets __punch_id to `PID-STARTTIME` of a process (or `self`), since pids come again, to "" when it
# is not there or dead; and __punch_parent. /proc may be that of an outer namespace: there its pid is another one.
__punch_identify() {
    builtin local __punch_n=1 __punch_m
    builtin local -a __punch_stat
    __punch_stat=()
    __punch_id=''
    { builtin mapfile -d ' ' -t __punch_stat <"/proc/$1/stat"; } 2>/dev/null
    if ((${#__punch_stat[@]} > 22)); then
        # The second field, a name in brackets, may hold anything, spaces and brackets too.
        if [[ "${__punch_stat[*]:2:16}" == *\)* ]]; then
            for __punch_m in 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
                if [[ ${__punch_stat[__punch_m]} == *\)* ]]; then __punch_n=$__punch_m; fi
            done
        fi
        __punch_parent=${__punch_stat[__punch_n + 2]}
        # The start time is the 22nd.
        __punch_id=${__punch_stat[0]}-${__punch_stat[__punch_n + 20]}
        # A zombie, or PF_EXITING.
        if [[ ${__punch_stat[__punch_n + 1]} == [ZXx] ]] || ((__punch_stat[__punch_n + 7] & 4)); then __punch_id=''; fi
    fi
}

# Fills __punch_known[pid] with the names of our children where /proc calls them otherwise than we.
__punch_translate() {
    builtin local __punch_child __punch_line __punch_rest
    builtin local -a __punch_lines
    __punch_lines=()
    { builtin mapfile -t __punch_lines <"/proc/self/task/${__punch_shell%-*}/children"; } 2>/dev/null
    __punch_rest=${__punch_lines[0]:-}
    while [[ -n $__punch_rest ]]; do
        __punch_child=${__punch_rest%% *}
        __punch_rest=${__punch_rest#"$__punch_child"}
        __punch_rest=${__punch_rest# }
        __punch_lines=()
        { builtin mapfile -t __punch_lines <"/proc/$__punch_child/status"; } 2>/dev/null
        for __punch_line in "${__punch_lines[@]}"; do
            if [[ $__punch_line == NSpid:* ]]; then
                __punch_identify "$__punch_child"
                __punch_known[${__punch_line##*[!0123456789]}]=$__punch_id
            fi
        done
    done
}

# Sets __punch_dirs: what PUNCH_STATE_DIR says, and the folder that tools without it find.
__punch_folders() {
    builtin local __punch_root="/tmp/.punch-$UID"
    builtin local __punch_given="${PUNCH_STATE_DIR:-}" __punch_variable
    builtin local -a __punch_environment
    __punch_environment=()
    __punch_own=$__punch_root/$__punch_shell
    if [[ -z $__punch_given ]]; then
        # A stage from which it was taken (`env -i`) finds what its shell was started with.
        { builtin mapfile -d '' -t __punch_environment </proc/self/environ; } 2>/dev/null
        for __punch_variable in "${__punch_environment[@]}"; do
            if [[ $__punch_variable == PUNCH_STATE_DIR=* ]]; then
                __punch_given=${__punch_variable#*=}
            fi
        done
    fi
    if [[ -n $__punch_given ]]; then __punch_dirs=("$__punch_given"); fi
    if [[ -z $__punch_given || -d $__punch_own ]]; then __punch_dirs+=("$__punch_own"); fi
    for __punch_dir in "${__punch_dirs[@]}"; do
        if [[ ! -d $__punch_dir/failures ]]; then
            if [[ $__punch_dir == "$__punch_own" ]]; then
                builtin command -p mkdir -m 700 -p -- "$__punch_root"
            fi
            builtin command -p mkdir -m 700 -p -- "$__punch_dir" "$__punch_dir/spare" \
                "$__punch_dir/verdicts" "$__punch_dir/pending" "$__punch_dir/running" "$__punch_dir/failures"
        fi
        if [[ ! -O $__punch_dir || ! -w $__punch_dir/failures || -L $__punch_root ]] ||
            [[ $__punch_dir == "$__punch_own" && ! -O $__punch_root ]]; then
            __punch_fail "the state folder $__punch_dir cannot be used"
        fi
    done
}

# Makes an empty file in verdicts/ of every state folder: __punch_say NAME
__punch_say() {
    for __punch_dir in "${__punch_dirs[@]}"; do
        if ! { >|"$__punch_dir/verdicts/$__punch_shell.$1"; } 2>/dev/null; then
            __punch_unwritten=1
            builtin command -p chmod 1700 "$__punch_dir"
            __punch_fail "no verdict can be written in $__punch_dir"
        fi
    done
}

# A failure of the script as a whole: __punch_fail WHY
__punch_fail() {
    builtin printf 'wait: %s\n' "$1" >&2
    if ((__punch_status == 0)); then __punch_status=1; fi
}

# Fills __punch_pids from the arguments, each of which may hold several: IFS may be anything.
__punch_arguments() {
    builtin local __punch_arg __punch_word
    for __punch_arg; do
        while [[ $__punch_arg == *[![:space:]]* ]]; do
            __punch_arg=${__punch_arg#"${__punch_arg%%[![:space:]]*}"}
            __punch_word=${__punch_arg%%[[:space:]]*}
            __punch_arg=${__punch_arg#"$__punch_word"}
            if [[ $__punch_word == *[!0123456789]* || ${#__punch_word} -gt 10 ]]; then
                __punch_garbage=$__punch_word
            else
                __punch_word=${__punch_word#"${__punch_word%%[!0]*}"}
                if [[ -z ${__punch_left[${__punch_word:-0}]:-} ]]; then
                    __punch_pids+=("${__punch_word:-0}")
                    __punch_left[${__punch_word:-0}]=1
                fi
            fi
        done
    done
}

# Fills __punch_text[pid] with the command of each stage, and __punch_piped[pid] with the process
# before it in a pipeline.
# `jobs` must run in this very shell: a subshell's table has no ended jobs.
__punch_commands() {
    builtin local __punch_line __punch_rest __punch_pid=''
    builtin local -a __punch_lines
    __punch_lines=()
    { LC_ALL=C builtin jobs -l >|"${__punch_dirs[0]}/spare/jobs-$__punch_shell"; } 2>/dev/null
    { builtin mapfile -t __punch_lines <"${__punch_dirs[0]}/spare/jobs-$__punch_shell"; } 2>/dev/null
    if ((${#__punch_lines[@]} == 0)); then
        # The disk is full, or `ulimit -f`: then at least those that run.
        __punch_rest=$(LC_ALL=C builtin jobs -l 2>/dev/null)
        while [[ -n $__punch_rest ]]; do
            __punch_lines+=("${__punch_rest%%$'\n'*}")
            __punch_line=${__punch_rest#*$'\n'}
            if [[ $__punch_line == "$__punch_rest" ]]; then __punch_line=''; fi
            __punch_rest=$__punch_line
        done
    fi
    for __punch_line in "${__punch_lines[@]}"; do
        __punch_rest=''
        case $__punch_line in
            \[[0123456789]*\][-+\ ]\ *) __punch_rest=${__punch_line#*\]?} __punch_pid='' ;;
            \ *) __punch_rest=$__punch_line ;;
        esac
        __punch_rest=${__punch_rest#"${__punch_rest%%[! ]*}"}
        if [[ $__punch_rest == [0123456789]*\ ?????????????????????????* ]] &&
            [[ ${__punch_rest%% *} != *[!0123456789]* ]]; then
            __punch_piped[${__punch_rest%% *}]=$__punch_pid
            __punch_pid=${__punch_rest%% *}
            __punch_rest=${__punch_rest#* }
            __punch_rest=${__punch_rest:24}
            __punch_text[__punch_pid]=${__punch_rest#| } # where its state is not that of the one before
        elif [[ -n $__punch_pid ]]; then
            __punch_text[__punch_pid]+=$'\n'$__punch_line
        fi
    done
}

# Sets __punch_harmless to 1 when status 1 of this stage only means "nothing found" or "they
# differ": it is such a command and nothing else, and 1 is not what bash says of a redirection that
# failed, or, with pipefail, of another command of its pipeline.
__punch_one_is_harmless() {
    builtin local __punch_word __punch_rest __punch_plain='' __punch_seeking=1 __punch_before_it=''
    __punch_unquote "${__punch_text[$1]:-}"
    __punch_rest="${__punch_plain//[[:space:]]/ } "
    __punch_harmless=''
    if [[ $__punch_before == *:pipefail:* && -n ${__punch_piped[$1]:-} ]]; then builtin return; fi
    while [[ -n $__punch_rest ]]; do
        __punch_word=${__punch_rest%% *}
        __punch_rest=${__punch_rest#*" "}
        case $__punch_before_it in
            # What it opened is there; other paths may be meant from another folder, or expand.
            *'<' | *'>' | *'>|')
                if [[ $__punch_word == /* && $__punch_word != *['$`*?[\~({']* && ! -e $__punch_word ]]; then
                    __punch_word=';'
                fi
                ;;
        esac
        case $__punch_word in
            *'>|') ;;
            '&&' | *['|;']*)
                __punch_harmless=''
                builtin return
                ;;
        esac
        __punch_before_it=$__punch_word
        if [[ -n $__punch_seeking ]]; then
            case ${__punch_word##*/} in
                grep | egrep | fgrep | zgrep | comm | diff | cmp) __punch_harmless=1 __punch_seeking='' ;;
                '' | command | exec | env | nice | *=*) ;;
                *) builtin return ;;
            esac
        fi
    done
}

# Sets __punch_plain to the text of a command in which nothing is quoted any more; what the quotes
# kept from being special has become a `$`.
__punch_unquote() {
    builtin local __punch_in __punch_rest="$1" __punch_quote __punch_skip
    while [[ $__punch_rest == *[\'\"\\]* ]]; do
        __punch_in=${__punch_rest%%[\'\"\\]*}
        __punch_plain+=$__punch_in
        __punch_rest=${__punch_rest:${#__punch_in}}
        __punch_quote=${__punch_rest:0:1}
        __punch_rest=${__punch_rest:1}
        if [[ $__punch_quote == \\ ]]; then
            __punch_in=${__punch_rest:0:1} __punch_skip=1
        else
            __punch_in=${__punch_rest%%"$__punch_quote"*}
            while [[ $__punch_quote == \" && $__punch_in == *\\ ]]; do
                __punch_plain+=\$
                __punch_rest=${__punch_rest:${#__punch_in} + 1}
                __punch_in=${__punch_rest%%\"*}
            done
            __punch_skip=$((${#__punch_in} + 1)) # and the quote at its end
        fi
        __punch_rest=${__punch_rest:__punch_skip}
        if [[ $__punch_in == *[!0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/._#+:@%,-]* ]]; then
            __punch_plain+=\$
        else
            __punch_plain+=$__punch_in
        fi
    done
    __punch_plain+=$__punch_rest
}

# Judges one stage that has ended: __punch_ended PID STATUS
__punch_ended() {
    builtin local __punch_good='' __punch_how __punch_signal='' __punch_kind=own
    builtin unset "__punch_left[$1]"
    __punch_judged=$((__punch_judged + 1))
    case $2 in
        0 | 141) __punch_good=1 ;;
        1)
            __punch_one_is_harmless "$1"
            __punch_good=$__punch_harmless
            ;;
    esac
    if [[ -n $__punch_good ]]; then
        __punch_say "good.${__punch_name[$1]}"
    else
        __punch_how="ended with status $2"
        if (($2 > 128)); then
            __punch_signal=$(builtin kill -l "$2" 2>/dev/null)
            if [[ -n $__punch_signal ]]; then __punch_how="was killed by SIG$__punch_signal"; fi
        fi
        # What we killed ourselves is a consequence.
        if [[ -n ${__punch_killed[$1]:-} ]]; then __punch_kind=stopped; fi
        __punch_good=${__punch_text[$1]:-its command is not known}
        __punch_how="stage ${__punch_stage[$1]} of $__punch_count (pid $1) $__punch_how: ${__punch_good% &}"
        builtin printf 'wait: %s\n' "$__punch_how" >&2
        __punch_mark "$__punch_kind" "$__punch_how"
        # The status of the first stage launched counts before any other.
        if ((__punch_status == 0)) || [[ $1 == "$__punch_last" ]]; then __punch_status=$2; fi
    fi
}

# Leaves a failure marker: __punch_mark KIND REASON. That the file is there is the failure; its
# lines say more where there is room.
__punch_mark() {
    builtin local __punch_now="${EPOCHREALTIME:-}"
    # Markers are read in the order of their names, which begin with nanoseconds.
    if [[ -n $__punch_now ]]; then
        __punch_now=${__punch_now//[!0123456789]/}000
    else
        builtin printf -v __punch_now '%(%s)T000000000' -1
    fi
    for __punch_dir in "${__punch_dirs[@]}"; do
        if ! { builtin printf 'component wait\nkind %s\norigin %s\nreason %s\n' "$1" \
            "${PUNCH_NODE//[[:cntrl:]]/ }" "${2//[[:cntrl:]]/ }" >|"$__punch_dir/failures/$__punch_now-$__punch_judged-$$"; } \
            2>/dev/null && [[ ! -e $__punch_dir/failures/$__punch_now-$__punch_judged-$$ ]]; then
            builtin command -p chmod 1700 "$__punch_dir"
        fi
    done
}

# Sends a signal to every stage that is left.
__punch_kill() {
    builtin local __punch_pid
    for __punch_pid in "${!__punch_left[@]}"; do
        builtin printf \
            'wait: stage %s (pid %s) is still there after the failure; sending SIG%s: %s\n' \
            "${__punch_stage[__punch_pid]}" "$__punch_pid" "$1" \
            "${__punch_text[__punch_pid]:-its command is not known}" >&2
        __punch_killed[__punch_pid]=1
        builtin kill -s "$1" "$__punch_pid" 2>/dev/null
        # bash waits for all of a pipeline. Python ignores SIGPIPE, and a put that is told to end
        # aborts itself. (Not `kill %N`: with a process of N dead, bash 5.2 never comes back.)
        __punch_preceding "$__punch_pid"
        while [[ -n $__punch_pid ]]; do
            builtin kill -s "${1/PIPE/TERM}" "$__punch_pid" 2>/dev/null
            __punch_preceding "$__punch_pid"
        done
    done
}

# Sets __punch_pid to the next process before this one in its pipeline that is there, or to nothing:
# __punch_preceding PID
__punch_preceding() {
    __punch_pid=${__punch_piped[$1]:-}
    if [[ -n $__punch_outer ]]; then __punch_pid=''; fi
    while [[ -n $__punch_pid ]]; do
        __punch_identify "$__punch_pid"
        if [[ -n $__punch_id && $__punch_parent == "${__punch_shell%-*}" ]]; then builtin return; fi
        __punch_pid=${__punch_piped[__punch_pid]:-}
    done
}

# Judges every stage of which bash already knows that it has ended.
__punch_sweep() {
    builtin local __punch_pid __punch_code
    for __punch_pid in "${!__punch_left[@]}"; do
        __punch_there=1
        if [[ -n $__punch_outer || ! -e /proc/$__punch_pid ]]; then __punch_there "$__punch_pid"; fi
        while [[ -z $__punch_there && -n ${__punch_left[__punch_pid]:-} ]]; do
            __punch_code=0
            builtin wait "$__punch_pid" 2>/dev/null || __punch_code=$?
            # Above 128 it may be a signal of ours that ended the call.
            if ((__punch_code > 128)); then __punch_there "$__punch_pid"; fi
            if [[ -z $__punch_there ]]; then __punch_ended "$__punch_pid" "$__punch_code"; fi
        done
    done
}

# Sets __punch_there to 1 while a process of ours has not been reaped, or another of its pipeline:
# until then `wait` would not come back.
__punch_there() {
    builtin local __punch_pid
    __punch_there=''
    if [[ -n $__punch_outer ]]; then
        if builtin kill -0 "$1" 2>/dev/null; then __punch_there=1; fi
    elif [[ -e /proc/$1/stat ]]; then
        __punch_there=1
    else
        __punch_preceding "$1"
        if [[ -n $__punch_pid ]]; then __punch_there=1; fi
    fi
}

__punch_wait() {
    builtin local __punch_pid __punch_code __punch_timer='' __punch_failing='' __punch_sig=PIPE
    builtin local __punch_grace="${PUNCH_FAILURE_GRACE:-30}" __punch_time __punch_pause=5
    if [[ $__punch_grace == *[!0123456789.]* ]]; then __punch_grace=30; fi
    __punch_sweep
    while ((${#__punch_left[@]})); do
        if [[ -z $__punch_failing ]] && ((__punch_status)); then
            __punch_failing=1
            __punch_stop_timer
        fi
        # `wait -n` forgets a stage that is killed between two calls, and knows nothing of tools in
        # `<( … )`. So it never waits alone: the timer ends it now and then, and we look. (A program,
        # for bash itself has no pause that ends when a child does: neither `read -t` nor `wait`.)
        if [[ -z $__punch_timer ]]; then
            __punch_time=$__punch_pause
            if ((__punch_pause < 20)); then __punch_pause=$((__punch_pause * 2)); fi
            if [[ -n $__punch_failing ]]; then __punch_time=$__punch_grace; fi
            if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then __punch_time=0.2; fi
            builtin command -p sleep "$__punch_time" </dev/null >/dev/null 2>&1 &
            __punch_timer=$!
        fi
        __punch_pid='' __punch_code=0
        if [[ $__punch_time == 0.2 ]]; then
            builtin wait "$__punch_timer" 2>/dev/null
            __punch_timer=''
        else
            builtin wait -n -p __punch_pid "${!__punch_left[@]}" "$__punch_timer" 2>/dev/null ||
                __punch_code=$?
            if [[ -n ${__punch_pid:-} && $__punch_pid != "$__punch_timer" ]]; then
                __punch_ended "$__punch_pid" "$__punch_code"
            fi
            __punch_there "$__punch_timer"
            if [[ -z $__punch_there ]]; then
                __punch_stop_timer
                __punch_find_killed
                if [[ -n $__punch_failing ]]; then
                    __punch_sweep
                    __punch_kill "$__punch_sig"
                    __punch_sig=KILL __punch_grace=5
                fi
            fi
        fi
        __punch_sweep
    done
    __punch_stop_timer
}

# Ends the timer of __punch_wait.
__punch_stop_timer() {
    if [[ -n $__punch_timer ]]; then
        builtin kill "$__punch_timer" 2>/dev/null
        builtin wait "$__punch_timer" 2>/dev/null
        __punch_timer=''
    fi
}

# Reads the markers of our components: __punch_markers FOLDER
__punch_markers() {
    builtin local __punch_marker __punch_line __punch_who __punch_why
    builtin local -a __punch_lines
    if [[ ! -d $1/failures || ! -r $1/failures || ! -x $1/failures || -k $1 ]]; then
        __punch_fail "what failed could not be written down, or cannot be read, in $1"
    fi
    for __punch_marker in "$1"/failures/*; do
        if [[ -e $__punch_marker ]]; then
            __punch_who='a component' __punch_why='' __punch_lines=()
            { builtin mapfile -t __punch_lines <"$__punch_marker"; } 2>/dev/null
            for __punch_line in "${__punch_lines[@]}"; do
                case $__punch_line in
                    'component '*) __punch_who=${__punch_line#* } ;;
                    # The first line: all of it stands above, in the component's own words.
                    'reason '*) __punch_why=${__punch_why:-${__punch_line#* }} ;;
                esac
            done
            if [[ $__punch_who != wait ]] || ((__punch_status == 0)); then
                __punch_fail "a component failed: $__punch_who: $__punch_why"
            fi
        fi
    done
}

# Finds our components that are dead, and neither were stages nor said how they ended: nobody else
# sees those in `<( … )`, nor their neighbours, which wait for a FIFO that they have not opened.
__punch_find_killed() {
    builtin local __punch_entry __punch_who __punch_pid
    for __punch_dir in "${__punch_dirs[@]}"; do
        for __punch_entry in "$__punch_dir"/running/[0123456789]*; do
            __punch_who=${__punch_entry##*/}
            __punch_pid=${__punch_who%%-*}
            __punch_identify "$__punch_pid"
            # Asked in this order: it may have ended well just now.
            if [[ $__punch_id != "${__punch_who%%.*}" && -e $__punch_entry ]] &&
                [[ -z ${__punch_killed[__punch_pid]:-} ]] &&
                [[ -n $__punch_outer || -z ${__punch_stage[__punch_pid]:-} ]]; then
                __punch_killed[__punch_pid]=1
                __punch_fail "a component failed: ${__punch_who#*.} (pid $__punch_pid): it was killed, or ended without a word"
            fi
        done
    done
}

# Ends what began in two steps: completes pending uploads, or aborts them. Whoever runs us does so
# where PUNCH_COMMIT is set; but we wait for puts in `>( … )`, which are no stages.
__punch_settle() {
    builtin local __punch_verb=complete __punch_upload __punch_tool=./punch-commit
    builtin local __punch_named=0 __punch_hidden='' __punch_found __punch_looks=600
    if [[ ${BASH_SOURCE[0]} == */* ]]; then __punch_tool=${BASH_SOURCE[0]%/*}/punch-commit; fi
    if [[ -d $__punch_own && ${__punch_dirs[0]} != "$__punch_own" && -z ${__punch_dirs[1]:-} ]]; then
        __punch_dirs+=("$__punch_own")
    fi
    # A put in `>( … )` may not have said yet that it runs: its stage was faster than its start.
    for __punch_upload in "${__punch_text[@]}"; do
        if [[ $__punch_upload == *'>('*aws/s3-put-* ]]; then __punch_hidden=1; fi
        while [[ $__punch_upload == *aws/s3-put-* ]]; do
            __punch_named=$((__punch_named + 1))
            __punch_upload=${__punch_upload#*aws/s3-put-}
        done
    done
    while [[ -n $__punch_hidden ]] && ((__punch_status == 0)); do
        __punch_found=0
        for __punch_dir in "${__punch_dirs[@]}"; do
            for __punch_upload in "$__punch_dir/pending/$__punch_shell".*.put*; do
                if [[ -e $__punch_upload ]]; then __punch_found=$((__punch_found + 1)); fi
            done
            for __punch_upload in "$__punch_dir"/failures/*; do
                if [[ -e $__punch_upload ]]; then __punch_found=$__punch_named; fi
            done
        done
        if ((__punch_found >= __punch_named)); then
            __punch_hidden=''
        elif ((__punch_looks == 0)); then
            __punch_fail "a put in >( … ) has not begun"
        else
            __punch_looks=$((__punch_looks - 1))
            builtin command -p sleep 0.05 </dev/null >/dev/null 2>&1
        fi
    done
    __punch_find_killed
    for __punch_dir in "${__punch_dirs[@]}"; do __punch_markers "$__punch_dir"; done
    for __punch_dir in "${__punch_dirs[@]}"; do
        if [[ -n ${PUNCH_COMMIT:-} ]]; then __punch_verb=wait; fi
        if ((__punch_status)); then __punch_verb=abort; fi
        for __punch_upload in "$__punch_dir"/pending/*; do
            case ${PUNCH_COMMIT:+not ours, }$__punch_verb:${__punch_upload##*/} in
                'not ours, wait'":$__punch_shell".*.put | complete:"$__punch_shell".*.put | complete:*.json | abort:*.json)
                    "$__punch_tool" "$__punch_verb" "$__punch_dir" "$__punch_shell" </dev/null ||
                        __punch_fail "the uploads were not settled"
                    builtin break # it settles all; and what failed must not go well the next time
                    ;;
            esac
        done
    done
    if ((__punch_named)); then
        for __punch_dir in "${__punch_dirs[@]}"; do
            builtin command -p rm -f -- "$__punch_dir/pending/$__punch_shell".*.put-ended
        done
    fi
    # A folder that we named ourselves is ours to remove, unless somebody has more to say there:
    # another wait script comes for what this one was not given.
    for __punch_upload in "$__punch_own"/running/[0123456789]*; do
        __punch_found=${__punch_upload##*/}
        __punch_identify "${__punch_found%%-*}"
        if [[ -n $__punch_id && $__punch_id == "${__punch_found%%.*}" ]]; then builtin return; fi
    done
    if [[ -d $__punch_own ]]; then builtin command -p rm -rf -- "$__punch_own"; fi
}

__punch_main() {
    builtin local -a __punch_text __punch_left __punch_stage __punch_pids __punch_dirs
    __punch_text=() __punch_left=() __punch_stage=() __punch_pids=() __punch_dirs=()
    builtin local -a __punch_known __punch_name __punch_killed __punch_piped __punch_words
    __punch_known=() __punch_name=() __punch_killed=() __punch_piped=() __punch_words=()
    builtin local __punch_id __punch_parent __punch_shell __punch_own __punch_dir __punch_outer='' __punch_there=''
    builtin local __punch_garbage='' __punch_last='' __punch_pid __punch_n __punch_harmless
    builtin local __punch_status=0 __punch_judged=0 __punch_count=0 __punch_traps __punch_limit
    if [[ -n ${GLOBIGNORE:-} ]]; then builtin local GLOBIGNORE=; fi
    __punch_traps=$(builtin trap -p CHLD)
    if [[ -n $__punch_traps ]]; then builtin trap - CHLD; fi
    __punch_limit=$(builtin trap -p XFSZ)
    # Under `ulimit -f` a file that cannot be written would kill this shell without a word.
    builtin trap '' XFSZ
    __punch_identify self
    __punch_shell=$__punch_id
    if [[ -z $__punch_shell ]]; then __punch_fail "there is no /proc"; fi
    if [[ ${__punch_shell%-*} != "$BASHPID" ]]; then
        __punch_outer=1
        __punch_translate
    fi
    __punch_folders
    __punch_commands
    if [[ ${IFS-} != *[0123456789]* ]]; then
        __punch_arguments "$@"
    elif [[ -n ${pids_to_kill:-} ]]; then
        # It has eaten digits of the arguments, but not of what they were made of.
        __punch_arguments "$pids_to_kill"
    else
        __punch_fail "IFS has digits, so the pids of the stages cannot be known"
    fi
    if [[ ${pids_to_kill:-} == *[![:space:]]* ]] && ((${#__punch_pids[@]} == 0)); then
        __punch_fail "no pid was given, but pids_to_kill has some"
    fi
    # Sourced without arguments, our own are the script's: its list says that there is no stage.
    { builtin mapfile -d '' -t __punch_words </proc/self/cmdline; } 2>/dev/null
    if [[ -n ${pids_to_kill+set} && ${pids_to_kill:-} != *[![:space:]]* ]] &&
        [[ $# == 0 || "${__punch_words[*]: -$#}" == "$*" ]]; then
        __punch_garbage=''
        for __punch_n in "${!__punch_pids[@]}"; do
            if [[ -z ${__punch_text[${__punch_pids[__punch_n]}]:-} ]]; then
                builtin unset "__punch_left[${__punch_pids[__punch_n]}]" "__punch_pids[$__punch_n]"
            fi
        done
    fi
    if [[ -n $__punch_garbage ]]; then __punch_fail "this is no pid of a stage: $__punch_garbage"; fi
    __punch_count=${#__punch_pids[@]}
    __punch_n=$__punch_count
    for __punch_pid in "${__punch_pids[@]}"; do
        __punch_stage[__punch_pid]=$__punch_n
        __punch_n=$((__punch_n - 1))
        __punch_last=$__punch_pid
        __punch_parent=${__punch_shell%-*}
        if [[ -n $__punch_outer ]]; then
            __punch_id=${__punch_known[__punch_pid]:-}
        else
            __punch_identify "$__punch_pid"
        fi
        if [[ $__punch_parent != "${__punch_shell%-*}" ]]; then
            # Somebody else's: it would be waited for in vain, and killed.
            __punch_fail "pid $__punch_pid is no stage of this script"
            builtin unset "__punch_left[$__punch_pid]"
            __punch_judged=$((__punch_judged + 1))
        else
            # A stage that has already ended has no start time any more.
            __punch_name[__punch_pid]=${__punch_id:-$__punch_pid-0}
            __punch_say "stage.${__punch_name[__punch_pid]}"
        fi
    done
    __punch_say begun
    __punch_wait
    __punch_settle
    # For the puts that this shell starts from now on: is anybody to come after them?
    __punch_n=1
    if [[ ${PUNCH_WAITED-} == "$__punch_shell "[123456789]* ]]; then __punch_n=$((${PUNCH_WAITED#* } + 1)); fi
    builtin export PUNCH_WAITED="$__punch_shell $__punch_n"
    if [[ -n $__punch_traps ]]; then builtin eval "builtin $__punch_traps"; fi
    builtin eval "builtin ${__punch_limit:-trap - XFSZ}"
    if ((__punch_judged == __punch_count)); then internal_exec_status=$__punch_status; fi
}

# Puts back the options that were changed above, and forgets all names but the status and PUNCH_WAITED.
__punch_restore() {
    builtin local __punch_option __punch_saved="$__punch_before"
    builtin unset __punch_before
    builtin unset -f __punch_identify __punch_translate __punch_folders __punch_say __punch_fail \
        __punch_arguments __punch_commands __punch_one_is_harmless __punch_unquote __punch_ended __punch_mark \
        __punch_kill __punch_preceding __punch_sweep __punch_there __punch_wait __punch_stop_timer __punch_markers \
        __punch_find_killed __punch_settle __punch_main __punch_restore
    if [[ $__punch_saved == *:posix:* ]]; then builtin set -o posix; fi
    for __punch_option in a b f k u v x C E H T e; do
        if [[ ${__punch_saved%%:*} == *$__punch_option* ]]; then builtin set "-$__punch_option"; fi
    done
    # Last the one that would make letters above equal.
    for __punch_option in expand_aliases failglob nullglob nocaseglob extdebug nocasematch; do
        if [[ $__punch_saved == *:$__punch_option:* ]]; then builtin shopt -s "$__punch_option"; fi
    done
}

__punch_main "$@"
__punch_restore
