#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/

rm_pash_fifos() {
{ rm -f "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" ; }
{ rm -f "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" ; }
{ rm -f "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo4" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" ; }
{ mkfifo "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" ; }
{ mkfifo "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo4" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" -o "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ <"/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" cut -c 1-40 >"/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo4" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib send*66944ca9-f868-5448-b8a5-c3119769bbbe*0*1*/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*2001a0a4-0244-5068-b679-799c77a97b13*1*0*/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
