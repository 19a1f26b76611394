#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/

rm_pash_fifos() {
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" -o "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" -o "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ sort -m "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" >"/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*26e849c3-a6bf-5220-97b4-34c8dcfe9471*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2 recv*63522009-9c06-53da-9d91-2b6b810ef619*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4 send*322a5417-25db-5de9-ac6d-e8d312ddaddd*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
