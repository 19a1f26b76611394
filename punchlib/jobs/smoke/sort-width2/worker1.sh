#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/

rm_pash_fifos() {
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2" ; }
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" ; }
{ rm -f "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2" ; }
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" ; }
{ mkfifo "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2" -o "/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ <"/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo3" sort >"/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*ac2f1d27-5b26-57ee-9b98-b1e739d18e7e*1*0*/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo2 send*b51eaafd-32e5-5788-a040-7555a13cacb7*0*1*/tmp/pash_sortw2/43fb53150f769762a2ae05abad488da5/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
