"""Pipelines to try `punch sh` on: tasks of our own, and how many of their stages are cut."""

from __future__ import annotations

#: Name -> pipeline, and the number of its stages that run on pieces (0: in one piece).
PIPELINES = {
    "word-frequency": (
        r"cat $IN | tr -cs A-Za-z '\n' | tr A-Z a-z | sort | uniq -c | sort -rn", 5),
    "top-words": (r"cat $IN | tr -cs A-Za-z '\n' | sort | uniq -c | sort -k1,1rn -k2 | head -5", 4),
    "distinct-words": (r"tr -s ' ' '\n' <$IN | sort -u", 2),
    "distinct-count": (r"cat $IN | tr -s ' ' '\n' | sort -u | wc -l", 3),
    "words-in-order": (r"cat $IN | tr ' ' '\n' | awk '!s[$0]++'", 3),
    "long-words": (r"cat $IN | tr -cs A-Za-z '\n' | awk 'length($0) > 7' | sort | uniq", 5),
    "capitals": (r"grep -o '[A-Z][a-z]*' $IN | sort | uniq -c | sort -rn | head -n 3", 3),
    "shout": (r"cat $IN | tr a-z A-Z", 2),
    "count-all": (r"cat $IN | wc", 2),
    "count-lines": (r"grep -c an $IN", 1),
    "count-none": (r"cat $IN | grep -v a | wc -l", 3),
    "no-match": (r"cat $IN | grep NOBODY", 2),
    "no-match-sorted": (r"cat $IN | grep NOBODY | sort | uniq -c", 4),
    "shortest-first": (r"awk '{print $1}' $IN | sort | head -n 4", 3),
    "largest": (r"cut -d ' ' -f 3 $IN | grep . | sort -r | head -1", 4),
    "last-lines": (r"cat $IN | sed 's/a/A/g' | tail -n 3", 3),
    "first-lines": (r"cat $IN | grep ka | head -n 2", 3),
    "reversed-words": (r"cat $IN | tr -cd 'a-zA-Z \n' | rev | sort | uniq", 5),
    "set-difference": (r"cat $IN | tr -cs A-Za-z '\n' | sort -u | comm -23 - $DICT", 3),
    "differences": (r"cat $IN | tr -cs A-Za-z '\n' | sort -u | diff -a - $DICT", 3),
    "in-both": (r"cat $IN | tr -cs A-Za-z '\n' | sort -u | comm -12 - $DICT | wc -l", 3),
    "log-status": (r"""cat $LOG | cut -d ' ' -f 4 | sort | uniq -c | sort -rn""", 4),
    "log-errors-by-host": (
        r"cat $LOG | grep ' 5[0-9][0-9] ' | awk '{print $1}' | sort | uniq -c | sort -k1nr -k2", 5),
    "log-slowest": (r"cat $LOG | sort -t ' ' -k5,5nr -k1 | head -n 5 | cut -d ' ' -f 1,5", 3),
    "log-paths": (r"cat $LOG | awk '$4 == 404 {print $3}' | sort -u", 3),
    "log-hosts": (r"cut -d ' ' -f 1 $LOG | sort -u | wc -l", 2),
    "log-gaps": (r"cat $LOG | cut -d ' ' -f 4 | uniq -c", 3),
    "log-gaps-short": (r"cat $LOG | cut -d ' ' -f 4 | uniq", 3),
    "weather-max": (r"cat $LOG | cut -d ' ' -f 1,5 | sort -k1,1 -k2,2nr | sort -u -k1,1 -s", 3),
    "reverse-order": (r"cat $LOG | sort -r | uniq -c", 3),
    "numeric-unique": (r"cut -d ' ' -f 5 $LOG | sort -n -u", 2),
    "masked": (r"sed -E 's/[0-9]+/N/g' $LOG | sort | uniq -c | sort -rn", 3),
    "folded": (r"fold -w 10 $IN | grep -c a", 2),
    "several-files": (r"cat $LOG $LOG $IN | sort | uniq -c", 3),
    "no-final-newline": (r"cat $OPEN | sort | uniq -c", 3),
    "cat-of-open": (r"cat $OPEN $IN | sort", 0),
    "sed-position": (r"cat $IN | sed -n 2p", 0),
    "numbered": (r"cat $IN | grep -n ka | tail -n 2", 0),
    "awk-sum": (r"cat $LOG | awk '{s += $5} END {print s}'", 0),
    "unknown": (r"cat $IN | nl | tail -n 2", 0),
    "sequence": (r"seq 100 | sort -rn | head -n 2", 0),
    "joined-lines": (r"cat $IN | tr '\n' ' ' | wc -c", 2),
    "head-of-counts": (r"cat $IN | tr -cs A-Za-z '\n' | sort | uniq -c | head -n 2", 4),
    "uniq-d": (r"cat $IN | tr ' ' '\n' | sort | uniq -d", 4),
    "squeeze-after-grep": (r"cat $IN | grep a | tr -cs A-Za-z '\n' | sort", 2),
    "empty": (r"cat $EMPTY | sort | uniq -c | sort -rn", 3),
    "empty-count": (r"cat $EMPTY | wc -l", 2),
    "xargs": (r"cat $IN | tr -cs a-z '\n' | sort -u | head -n 3 | xargs -n1 echo", 4),
    # words
    "spell": (
        r"cat $IN | tr -cd '\000-\177' | col -bx | tr -cs A-Za-z '\n' | tr A-Z a-z | grep ."
        r" | sort -u | comm -23 - $DICT", 7),
    "spell-count": (
        r"cat $IN | tr A-Z a-z | tr -cs a-z '\n' | sort | uniq -c | sort -k1,1rn -k2"
        r" | head -n 7", 5),
    "only-once": (r"cat $IN | tr -cs A-Za-z '\n' | sort | uniq -u", 4),
    "more-than-once": (r"tr -s ' ' '\n' <$IN | sort -r | uniq -d | head -n 5", 3),
    "bigrams": (
        r"cat $IN | tr -cd 'A-Za-z \n' | awk 'NF > 1 {for (i = 1; i < NF; i++) print $i, $(i + 1)}'"
        r" | sort | uniq -c | sort -rn | head -n 9", 5),
    "trigrams": (
        r"""cat $IN | awk '{for (i = 1; i <= NF - 2; i++) print $i, $(i + 1), $(i + 2)}' | sort"""
        r" | uniq -c | sort -k1nr -k2 | head -n 4", 4),
    "bigrams-over-lines": (r"cat $IN | tr -cs A-Za-z '\n' | paste - - | sort | uniq -c", 2),
    "letter-pairs": (r"tr -cd 'a-z\n' <$IN | fold -w 2 | sort | uniq -c | sort -rn | head -3", 4),
    "rhymes": (r"cat $IN | tr -cs A-Za-z '\n' | sort -u | rev | sort | rev | head -n 6", 3),
    "one-syllable": (
        r"cat $IN | tr -cs A-Za-z '\n' | grep -i '^[^aeiou]*[aeiou][^aeiou]*$' | sort"
        r" | uniq -c", 5),
    "vowels-only": (r"sed 's/[^aeiou]//g' $IN | sort | uniq -c | sort -rn | head", 3),
    "vowel-runs": (r"cat $IN | tr -sc aeiou '\n' | sort | uniq -c", 4),
    "three-times": (r"grep -c 'an.*an.*an' $IN", 1),
    "first-of-each-letter": (
        r"cat $IN | tr -cs a-z '\n' | awk '!s[$0]++' | sort | cut -c 1 | uniq", 3),
    "longest-line": (r"cat $IN | wc -L", 2),
    "line-lengths": (r"awk '{print length($0)}' $IN | sort -n | uniq -c", 2),
    "titles": (
        r"""cat $IN | tr -s ' ' '\n' | awk '{print toupper(substr($0, 1, 1)) substr($0, 2)}'"""
        r" | sort -u",
        4),
    "double-spaced": (r"cat $IN | sed G | head -n 8", 3),
    "backwards": (r"cat $IN | tac | head -n 5", 2),
    "as-utf-8": (r"iconv -f LATIN1 -t UTF-8 $IN | grep -a . | sort | tail -n 2", 3),
    "first-matches": (r"cat $IN | grep -m 3 ka | cut -c 1-20", 2),
    "each-word-echoed": (r"cat $DICT | head -n 40 | xargs -r -n1 echo word", 2),
    "names-of-words": (
        r"sed 's;^;/a/;' $DICT | grep ka | xargs -r -n1 basename | sort -r | head -2", 5),
    "lines-with": (r"""cat $IN | awk '/ka/ {n++} END {print n + 0}'""", 2),
    # a log
    "log-bytes-by-class": (
        r"""awk '{if ($5 > 200) print $4, "big"; else print $4, "small"}' $LOG | sort"""
        r" | uniq -c", 3),
    "log-hosts-first-seen": (r"cat $LOG | awk '!seen[$1]++' | cut -d ' ' -f 1,3", 2),
    "log-rewritten": (
        r"""cat $LOG | awk '{gsub(/host/, "h"); printf "%s,%05d\n", $1, $5}' | tac""", 3),
    "log-number-of": (r"cat $LOG | awk '$4 == 503' | awk 'END {print NR}'", 3),
    "log-mean": (r"""cat $LOG | awk '{s += $5} END {printf "%.3f\n", s / NR}'""", 0),
    "log-middle": (r"cat $LOG | tail -n +100 | head -n 2", 0),
    # the weather of a year
    "weather-hottest": (
        r"cut -c 15-19 $WEATHER | grep -v 9999 | tr -d + | sort -rn | head -n 1", 5),
    "weather-coldest": (
        r"cat $WEATHER | cut -c 15-19 | grep -v 9999 | tr -d + | sort -n | head -n 1", 6),
    "weather-max-by-station": (
        r"cat $WEATHER | sed -E 's/^(.{6}).{8}(.)(.{4})(.)$/\1 \2\3 \4/' | grep -v 9999"
        r" | grep -E ' [01459]$' | tr -d + | sort -k1,1 -k2,2nr | sort -u -s -k1,1", 6),
    "weather-by-month": (r"cut -c 11-12 $WEATHER | sort | uniq -c", 3),
    "weather-frost": (r"grep -c -e '-[0-9]*$' $WEATHER", 1),
    "weather-missing": (
        r"cat $WEATHER | grep 9999 | cut -c 1-6 | sort | uniq -c | sort -rn | head -n 2", 5),
    "weather-days-alone": (r"cut -c 7-14 $WEATHER | sort | uniq -u | wc -l", 3),
    # a timetable of buses
    "bus-vehicles-by-day": (
        r"cat $BUS | sed 's/T..:..//' | cut -d , -f 1,3 | sort -u | cut -d , -f 1 | sort"
        r" | uniq -c", 4),
    "bus-days-by-vehicle": (
        r"sed 's/T..:..//' $BUS | awk -F, '{print $3, $1}' | sort -u | cut -d ' ' -f 1 | sort"
        r" | uniq -c | sort -k1,1n -k2 | tail -n 3", 3),
    "bus-busy-hours": (
        r"awk -F, '{print substr($1, 12, 2)}' $BUS | sort | uniq -c | sort -rn | head -n 3", 3),
    "bus-hours-by-line": (
        r"""cat $BUS | awk 'BEGIN {FS = ","; OFS = " "} {print $2, substr($1, 12, 2)}' | sort -u"""
        r" | cut -d ' ' -f 1 | uniq -c", 3),
    "bus-late": (r"awk -F, '$4 > 15 {print $2}' $BUS | sort | uniq -c | sort -rn", 3),
    "bus-once-on-a-line": (r"cut -d , -f 2,3 $BUS | sort | uniq -u | head -n 4", 3),
    "bus-last-departures": (
        r"cat $BUS | tr T , | sort -t , -k2,2r -k3,3 | head -n 3 | cut -d , -f 2-4", 4),
    # who did what on which machine
    "history-first": (r"sort -t : -k2,2n -k1 $PEOPLE | head -n 1 | cut -d : -f 1", 2),
    "history-initials": (
        r"cut -d : -f 1 $PEOPLE | awk '{print substr($1, 1, 1) substr($2, 1, 1)}' | sort"
        r" | uniq -d", 4),
    "history-decades": (r"cut -d : -f 2 $PEOPLE | sed 's/.$/0s/' | sort | uniq -c", 4),
    "history-last-word": (r"rev $PEOPLE | cut -d ' ' -f 1 | rev | sort | uniq -c", 5),
    "history-longest-name": (
        r"cut -d : -f 1 $PEOPLE | awk '{print length($0), $0}' | sort -u | sort -k1,1nr -k2"
        r" | head -1", 3),
    "history-capitals": (r"cut -d : -f 1 $PEOPLE | grep -o '[A-Z]' | tr -d '\n'", 3),
    "history-folders": (
        r"cut -d : -f 3 $PEOPLE | sort -u | xargs -r -n1 dirname | uniq -c", 2),
    "history-sources": (r"cut -d : -f 3 $PEOPLE | head -n 30 | xargs -I{} basename {}", 2),
    "history-newest-first": (r"cat $PEOPLE | sort -t : -k 2,2n -s | tac | head -n 2", 2),
    "history-of-ken": (
        r"cat $PEOPLE | grep '^Ken ' | cut -d : -f 4 | sort | uniq -c | sort -rn | head", 5),
    "history-numbered": (r"cat $PEOPLE | grep chess | cut -d : -f 1 | nl | tail -n 1", 3),
    "history-wrapped": (r"cut -d : -f 4 $PEOPLE | fmt -w 60 | head -n 3", 1),
    # events in JSON
    "json-kinds": (r"cat $EVENTS | jq -r .kind | sort | uniq -c", 4),
    "json-buyers": (
        r"""jq -c 'select(.kind == "buy") | .user.id' $EVENTS | sort -n | uniq -c""", 2),
    "json-table": (
        r"cat $EVENTS | jq -r '[.kind, .user.id, .price] | @tsv' | sort -k2,2n -s | head -n 3", 4),
    "json-tags": (r"jq -r '.tags[]' $EVENTS | sort | uniq -c | sort -rn", 3),
    "json-smaller": (r"cat $EVENTS | jq -c '{kind, who: .user.id}' | tail -n 2", 3),
}  # fmt: skip
