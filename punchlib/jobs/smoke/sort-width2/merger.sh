#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/

rm_pash_fifos() {
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2" ; }
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" ; }
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4" ; }
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo5" ; }
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo6" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2" ; }
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" ; }
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4" ; }
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo5" ; }
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo6" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2" -o "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4" -o "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo5" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ sort -m "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo5" >"/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo6" & }
pids_to_kill="${!} ${pids_to_kill}"
{ python3.9 aws/s3-put-object.py "oneliners/outputs/sort.sh:1M.txt:2:leashstdout.txt" "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo6" $1 & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*b51eaafd-32e5-5788-a040-7555a13cacb7*1*0*/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2 recv*53e7b1b8-fb09-5d51-904a-8fcd3e92ba93*1*0*/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
