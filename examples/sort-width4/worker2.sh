#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/

rm_pash_fifos() {
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" -o "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ <"/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" sort >"/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*0dbc6aac-a61d-5ddc-a457-588910a31b92*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2 send*a84a86fa-2f9b-5674-a686-a1f6fe500097*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
