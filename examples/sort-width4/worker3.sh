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
{ /opt/pashlib recv*68265a78-eae8-5ce4-b44a-52be8d51a57d*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2 send*26e849c3-a6bf-5220-97b4-34c8dcfe9471*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
