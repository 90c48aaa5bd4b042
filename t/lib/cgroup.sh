# SPDX-License-Identifier: MIT
#
# cgroup.sh - what t/cgroup.t does in a guest, by busybox's sh: vfund in cgroups of several kinds
#
# Started as the guest's one command. An initramfs can't be left by pivot_root, which confinement needs: everything moves
# to a tmpfs first. What happens is printed in parts, each below a line "== NAME"; the test looks at them.
set -u
export PATH=/bin:/sbin:/
G=/sys/fs/cgroup

if [ "${1:-}" != inside ]; then
	b=/bin/busybox
	$b --install -s /bin
	mkdir /new && mount -t tmpfs none /new && cd /new && mkdir bin dev proc sys run tmp etc || exit 1
	cp /vfun $b /bin/client /bin/ending /bin/cg bin/ && cp /vfun.conf /cgroup.sh . && cp /etc/passwd etc/ || exit 1
	$b --install -s bin
	for d in dev proc sys; do mount -o move /$d $d || exit 1; done
	mount -o move . / && exec chroot . /bin/busybox sh /cgroup.sh inside
	exit 1
fi
exec 2>&1
mount -t cgroup2 none $G || exit 1

part() { echo "== $1"; }

# up NAME COMMAND...: a vfund with this name's run folder, started by way of the command; its pid in $pid
up() {
	name=$1
	shift
	: >/tmp/$name.log
	"$@" vfun daemon -c /vfun.conf --run /run/$name >/tmp/$name.log 2>&1 &
	pid=$!
	until grep -q ready: /tmp/$name.log; do usleep 20000; kill -0 $pid || break; done
	cat /tmp/$name.log
	export VFUN_RUN_DIR=/run/$name
}

down() {
	kill $pid
	wait $pid
	echo "status $?"
}

# hold COMMAND...: a client that holds an instance of $function with $slots slots; its pid in $held, the instance's cgroup in $group
hold() {
	rm -f /tmp/held
	"$@" client hold ${function:-factorial} host ${slots:-1} >/tmp/held 2>&1 &
	held=$!
	until grep -q . /tmp/held; do usleep 20000; done
	group=$(find $G -name "vfund-*.*" -type d)
}

# What there is of vfund's, and which controllers are handed on
left() {
	find $G -type d -name "vfund-*" | wc -l
	cat ${1:-$G}/cgroup.subtree_control
}

limits() {
	for f in pids.max memory.max cpu.max pids.current; do
		[ -e $group/$f ] && echo "$f $(cat $group/$f)"
	done
	echo "in it: $(cat /proc/$(cat $group/cgroup.procs)/comm)"
}

part ROOT
up a
hold env
limits
grep "^shmem " $group/memory.stat
for p in $(pidof vfun); do
	case $(cat /proc/$p/comm) in vfun-engine) sed 's/^/engine: /' /proc/$p/cgroup ;; esac
done
vfun call factorial 51
left

part PIDS
cg in $group 0 cg fork

part CPU
client busy host >/dev/null &
busy=$!
sleep 3
for g in $(find $G -name "vfund-*.*" -type d); do grep nr_throttled $g/cpu.stat; done
kill $busy
wait $busy

part MEMORY
cg in $group 0 cg eat 200
echo "status $?"
grep oom_kill $group/memory.events
cat /tmp/held

part OOM
echo 0 >$group/memory.max
for i in 1 2 3 4 5 6 7 8 9 10; do [ -d $group ] && sleep 1; done
grep cgroup /tmp/a.log
kill $held
wait $held
left

part ENDING
ending answered host >/tmp/ending &
held=$!
for i in 1 2 3 4 5 6 7 8 9 10; do grep -q ready /tmp/ending || sleep 1; done
echo 0 >$(find $G -name "vfund-*.*" -type d)/memory.max
wait $held
echo status $?
cat /tmp/ending

part WORKERS
function=zstd slots=2
hold env
limits
unset function slots
kill $held
wait $held
for i in 1 2 3 4 5 6 7 8 9 10; do [ -d $group ] && sleep 1; done

part KILLED
hold env
kill -9 $pid
wait $pid
kill $held
wait $held
left
up a
left

part TERM
hold env
down
left

part PARTIAL
echo +pids >$G/cgroup.subtree_control
mkdir $G/part
up p cg in $G/part 0
hold env
limits
down
left $G/part

part BUSY
cg in $G/part 0 sleep 1000 &
other=$!
usleep 200000
up b cg in $G/part 0
vfun call factorial 5
down
left $G/part
kill $other

part USER
echo "+cpu +memory +pids" >$G/cgroup.subtree_control
mkdir $G/user
chown -R 1000:1000 $G/user
mkdir /run/u
chown 1000:1000 /run/u
up u cg in $G/user 1000
hold cg in $G 1000
limits
down
left $G/user

part FOREIGN
mkdir $G/root
up u cg in $G/root 1000
hold cg in $G 1000
down
left $G/root

part SYSTEMD
mkdir -p /run/systemd/system
up s cg in $G/root 0
down
cg mark $G/root
up s cg in $G/root 0
hold env
limits
down
left $G/root

part MANAGER
up u cg in $G/user 1000
hold cg in $G 1000
limits
down
left $G/user
part END
