# bomb.sh ASK GO MOMENT BYTES: passes stdin on to stdout and, at a byte of it, says so and waits.
#
# A stage of the suite's own: what it passed before it asks is on its way, what comes after is not.
# before: nothing has passed. at: BYTES have. eof: all has, and its output is closed.
ask() {
    echo >"$ask"
    read -r _ <"$go"
}
ask=$1 go=$2
case $3 in
    before) ask && exec cat ;;
    at) head -c "$4" && ask && exec cat ;;
    *) cat && exec >&- && ask ;;
esac
