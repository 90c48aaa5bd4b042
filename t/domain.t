#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# domain.t - `vfun domain` and the watcher, with libvirt's test driver and with a real libvirtd
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;
use Virt;

requires('root', 'tree', 'libvirt');

my $run = tmp('run');
my $uuid = '11111111-2222-3333-4444-555555555555';
my $shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>";

# `vfun domain` with libvirt's test driver, which needs no libvirtd.
sub test_driver {
	my ($uri, @args) = @_;
	return run([in_tree(undef, vfun_here(), 'domain', @args, '--connect', $uri, (grep { $_ eq '--run' } @args) ? () : ('--run', $run))]);
}

sub refused {
	my ($r, $status, $text, $name) = @_;
	is($r->{status}, $status, "$name: status $status") or diag($r->{out} . $r->{err});
	like($r->{err}, $text, "$name: one sentence");
	is(scalar(() = $r->{err} =~ /\n/g), 1, "$name: one line") or diag($r->{err});
	is($r->{out}, '', "$name: nothing else");
	return;
}

# The command line, without libvirt
refused(vfun('domain', 'list'), 9, qr/^vfun domain: libvirt\.so\.0 is missing on this host: .* libvirt0\)$/, 'no libvirt') if !glob '/usr/lib/*/libvirt.so.0';
is(vfun('domain', @$_)->{status}, 2, "wrong use: @$_") for [], ['attach'], ['attach', 'a', 'b'], ['list', 'a'], ['nosuch', 'a'],
	['attach', 'a', '--path', 'net'], ['attach', 'a', '--instances', '0'], ['attach', 'a', '--functions', 'a/b'], ['attach', 'a', '--memory', 'x'],
	['attach', 'a', '--live', '--fix'];
my $hook = spew(tmp('hook'), vfun('domain', 'hook')->{out});
is(run(['sh', '-n', $hook])->{status}, 0, 'the hook is a script');

# The test driver
my $other = test_driver('test:///default', 'attach', 'test', '--fix', '--functions', 'factorial,  sha256', '--instances', 8, '--memory', '256M');
is($other->{status}, 0, 'attached, with the test driver') or diag($other->{err});
like($other->{out}, qr/^\+ +<vfun:vfun xmlns:vfun="urn:vfun:domain:1" functions="factorial sha256" instances="8" memory="256M" path="copy"/m, 'its element');
like($other->{out}, qr{^\+ +<source socket="\Q$run\E/vmcli/[-0-9a-f]{36}/share\.sock"/>$}m, 'its file system');
like($other->{out}, qr/^test: attached to the definition, path copy, functions factorial sha256$/m, 'said');
unlike($other->{out}, qr/^-/m, 'nothing is taken away');
like($other->{out}, qr{^in the guest: mkdir -p /run/vfun && mount -t virtiofs vfun /run/vfun$}m, 'what to type in the guest');
like(test_driver('test:///default', 'attach', 'test', '--fix', '--unit')->{out}, qr{^What=vfun\nWhere=/run/vfun\nType=virtiofs$}m, 'or a unit');
refused(test_driver('test:///default', 'attach', 'nosuch'), 3, qr/nosuch: libvirt has no such domain/, 'unknown domain');
refused(test_driver('test:///default', 'attach', 'test'), 3, qr/isn't shared: it needs <memoryBacking>.* --fix/, 'memory that is not shared');
refused(test_driver('test:///default', 'attach', 'test', '--live'), 3, qr/isn't shared, which can't be changed while it runs/, 'nor can be, live');
refused(test_driver('test:///default', 'attach', 'test', '--fix', '--path', 'dax'), 6, qr/path dax needs QEMU/, 'a path that is not to be had');
refused(test_driver('test:///default', 'detach', 'test'), 3, qr/the definition has no functions of vfun/, 'nothing to take away');
refused(test_driver('qemu+unix:///system?socket=/nowhere', 'list'), 9, qr/libvirt doesn't answer: is it running, and may you use it\? \(/, 'no libvirtd');
refused(test_driver('test:///default', 'attach', 'test', '--fix', '--run', '/' . 'r' x 60), 2, qr/the run folder's name is too long/, 'a name that is no socket\'s');
like(test_driver('test:///default', 'list')->{out}, qr/^domain +uuid +state +path +functions\n\z/, 'none is listed');

my $node = spew(tmp('node.xml'), <<"END");
<node>
<domain type='test'><name>plain</name><uuid>00000000-0000-4000-8000-000000000001</uuid><memory>65536</memory><os><type>hvm</type></os></domain>
<domain type='test'><name>web</name><uuid>$uuid</uuid><metadata><vfun:vfun xmlns:vfun='urn:vfun:domain:1' functions=' factorial,
 sha256 ' instances='8' memory='256M' ivshmem='64M' path='ivshmem'/><o:o xmlns:o='o'/></metadata><memory>65536</memory>$shared<os><type>hvm</type></os>
<seclabel type='static' model='selinux' relabel='no'><label>u:r:own_t:s0</label></seclabel></domain>
<domain type='test'><name>faulty</name><uuid>00000000-0000-4000-8000-000000000002</uuid><metadata><vfun:vfun xmlns:vfun='urn:vfun:domain:1' memory='much'/></metadata>
<memory>65536</memory><os><type>hvm</type></os></domain>
<domain type='test'><name>cells</name><uuid>00000000-0000-4000-8000-000000000003</uuid><memory>65536</memory><vcpu>2</vcpu><os><type>hvm</type></os>
<cpu><numa><cell id='0' cpus='0-1' memory='65536' memAccess='private'/></numa></cpu></domain>
</node>
END
like(test_driver("test://$node", 'list')->{out}, qr/^web +$uuid +running +ivshmem +factorial sha256$/m, 'listed');
like(test_driver("test://$node", 'list')->{out}, qr/^faulty .* \? +memory is not a size/m, 'with what is wrong');
refused(test_driver("test://$node", 'attach', 'web'), 3, qr/has its functions already/, 'a second time');
refused(test_driver("test://$node", 'attach', 'cells', '--fix'), 3, qr/give each <cell> of <numa> the attribute memAccess='shared'/, 'what --fix does not do');
is(test_driver("test://$node", 'detach', $uuid)->{status}, 0, 'detached, by uuid');
is(test_driver("test://$node", 'detach', 'faulty')->{status}, 0, 'a faulty element can be taken away');

# The watcher, with the test driver
my $watch = Virt->watch("test://$node");
is_deeply([$watch->until(qr/^DOMAIN/)], ['BEGIN', 'DOMAIN web running ivshmem'], 'the list has those with an element') or diag(slurp($watch->{log}));
is($watch->{last}{label}, 'u:r:own_t:s0', 'and the label that it wants');
is_deeply([$watch->until(qr/^END/)], ['END'], 'and no others') or diag(slurp($watch->{log}));
like(slurp($watch->{log}), qr/faulty: its element for vfun counts for nothing: memory is not a size/, 'and the log the faulty one');
close $watch->{socket};
ok(wait_until(5, sub { !grep { $_->[0] == $watch->{pid} } descendants() }), 'it ends with vfund');
my $none = Virt->watch('nosuch:///');
is_deeply([$none->until(qr/LOST/)], ['LOST'], 'no driver: said') or diag(slurp($none->{log}));
ok(!defined $none->next(4), 'once');
close $none->{socket};

# A real libvirtd
my $virt;
my $initrd = Virt::initramfs(tmp('initrd'), (map { $_ => undef } qw(bin dev proc sys run run/vfun)),
	'bin/busybox' => slurp('/bin/busybox'), 'bin/vfun' => slurp(vfun_here()), 'init' => <<'END');
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
exec >/dev/ttyS0 2>&1 </dev/null
echo READY
until mount -t virtiofs vfun /run/vfun 2>/dev/null; do sleep 0.2; done
echo MOUNTED
vfun call -v factorial 51
echo "CALLED $?"
umount /run/vfun
echo DONE
while :; do sleep 1; done
END

# Where both see it, and QEMU's user may.
my $kernel = spew(tmp('vmlinuz'), slurp("$TREE/kernel/vmlinuz"));

sub definition {
	my ($name, $id, $machine, $more) = @_;
	my $ports = $machine eq 'q35' ? "<controller type='pci' model='pcie-root'/>" . "<controller type='pci' model='pcie-root-port'/>" x 2 : '';
	return spew(tmp("$name.xml"), <<"END");
<domain type='qemu'><name>$name</name><uuid>$id</uuid><memory unit='MiB'>384</memory><vcpu>1</vcpu>$more<features><acpi/><apic/></features>
<os><type arch='x86_64' machine='$machine'>hvm</type><kernel>$kernel</kernel><initrd>$initrd</initrd>
<cmdline>console=ttyS0 quiet panic=-1 tsc=reliable</cmdline></os><cpu mode='maximum'/><on_reboot>destroy</on_reboot>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>$ports<controller type='usb' model='none'/><memballoon model='none'/>
<serial type='file'><source path='@{[tmp("$name.console")]}'/></serial></devices></domain>
END
}

sub xml { return $virt->virsh('dumpxml', $_[0], '--inactive')->{out}; }

# Definitions, with the tree's and with this machine's. best: the best path that the QEMU there has.
sub definitions {
	my ($own, $best, @paths) = @_;
	$virt = Virt->new('root', $own);
	ok($virt->up, 'libvirtd') or BAIL_OUT($virt->log);
	$watch = Virt->watch($virt->uri, $own);
	is_deeply([$watch->until(qr/^END/)], ['BEGIN', 'END'], 'no domain yet') or diag(slurp($watch->{log}));
	is($virt->virsh('define', definition('web', $uuid, 'q35', ''))->{status}, 0, 'a domain');
	my $bounded = spew(tmp('bounded.conf'), slurp('vfun.conf') . "\n[libvirt]\nconnect = qemu:///system\nmemory = 100M\n");
	like($virt->domain('xml', 'web', '--memory', '1G', '--run', $run, '-c', $bounded)->{out}, qr/ivshmem="128M"/, 'a device no larger than vfun.conf allows');
	my $before = xml('web');
	refused($virt->domain('attach', 'web', '--run', $run), 3, qr/isn't shared/, 'a domain without shared memory');
	is(xml('web'), $before, 'is untouched');
	for my $path (@paths) {
		my $r = $virt->domain('attach', 'web', '--run', $run, '--fix', '--path', $path, '--functions', 'factorial');
		is($r->{status}, 0, "path $path") or diag($r->{err});
		is(($watch->until(qr/^DOMAIN/))[-1], "DOMAIN web shut off $path", 'the watcher says so');
		is($watch->{last}{functions}, 'factorial', 'with the functions');
		is($watch->{last}{size}, 1424, 'in so many bytes');
		is("$watch->{last}{uid} $watch->{last}{gid}", '0 0', 'and who QEMU runs as');
		is($watch->{last}{ivshmem}, $path eq 'ivshmem' ? 64 << 20 : 0, 'and the size of its device');
		refused($virt->domain('attach', 'web', '--run', $run, '--path', $path), 3, qr/already/, 'a second time');
		is($virt->domain('detach', 'web')->{status}, 0, 'detached');
		is(($watch->until(qr/^GONE/))[-1], "GONE $uuid", 'the watcher says so');
		# libvirt adds a port for a device, and keeps it.
		my $port = qr{\s*<controller type='pci' index='3'.*?</controller>}s;
		is(xml('web') =~ s/$port//r, $before =~ s/$port//r, 'nothing else is changed');
	}
	refused($virt->domain('attach', 'web', '--live', '--run', $run), 3, qr/it isn't running/, 'live, and not running');

	is($virt->domain('attach', 'web', '--run', $run, '--fix')->{status}, 0, 'the best path');
	is(($watch->until(qr/^DOMAIN/))[-1], "DOMAIN web shut off $best", "is $best");
	is($virt->virsh('domrename', 'web', 'shop')->{status}, 0, 'renamed');
	is(($watch->until(qr/DOMAIN shop/))[-1], "DOMAIN shop shut off $best", 'the same uuid has another name');
	1 while $watch->next(1);    # there are two events for it
	is($virt->virsh('metadata', 'shop', '--uri', 'urn:vfun:domain:1', '--key', 'vfun', '--set', "<vfun functions='fibonacci' path='$best'/>", '--config')->{status}, 0, 'the element is written by virsh');
	$watch->until(qr/^DOMAIN/);
	is("$watch->{last}{name} $watch->{last}{functions}", 'shop fibonacci', 'the watcher reads it');

	# libvirtd dies, and comes back
	kill 'KILL', $virt->pid;
	is_deeply([$watch->until(qr/LOST/)], ['LOST'], 'libvirtd is killed');
	like($watch->{last}{text}, qr/^libvirt's connection is gone/, 'the watcher says so');
	is_deeply([$watch->until(qr/^END/, 30)], ['BEGIN', "DOMAIN shop shut off $best", 'END'], 'and the whole list when it is back') or diag($virt->log);
	is($virt->domain('detach', 'shop')->{status}, 0, 'detached');
	is($virt->virsh('undefine', 'shop')->{status}, 0, 'undefined');
	is(($watch->until(qr/^GONE/))[-1], "GONE $uuid", 'gone');

	is_deeply([$virt->down], [], 'libvirtd leaves nothing');
	close $watch->{socket};
	return;
}

definitions(undef, 'dax', qw(dax ivshmem copy));
definitions('own', run(['qemu-system-x86_64', '-device', 'help'])->{out} =~ /vhost-user-test-device-pci/ ? 'dax' : 'ivshmem', qw(ivshmem copy));

# Domains that run, with QEMU as another user than vfund's, as libvirt has it
my $d;

sub host {
	my ($user, $own) = @_;
	$virt = Virt->new($user, $own);
	ok($virt->up, "libvirtd, QEMU as $user") or BAIL_OUT($virt->log);
	my ($version) = run(['dpkg-query', $own ? () : "--admindir=$TREE/var/lib/dpkg", '-W', '-f', '${Version}', 'libvirt0'])->{out} =~ /^([\d.]+)/;
	like($virt->virsh('version')->{out}, qr/library: libvirt \Q$version\E$/m, 'of ' . ($own ? 'this machine' : 'the tree'));
	$d = Vfun->new(tree => !$own, conf => slurp('vfun.conf') . "\n[libvirt]\nconnect = " . $virt->uri . "\nfunctions = factorial sha256\n"
		# Whose entry libvirtd has, see Virt.pm.
		. ($own ? "user = 64055\ngroup = 64055\n" : ''));
	ok($d->up, 'vfund') or BAIL_OUT($d->log);
	$run = $d->{run};
	$watch = Virt->watch($virt->uri, $own);
	is_deeply([$watch->until(qr/^END/, 60)], ['BEGIN', 'END'], 'no domain yet');
	return;
}

sub no_host {
	close $watch->{socket};
	is_deeply([$virt->down], [], 'libvirtd leaves nothing');
	is_deeply([$d->down], [], 'nor vfund');
	return;
}

sub started {
	my ($name, $id, $machine, $path, @how) = @_;
	is($virt->virsh('define', definition($name, $id, $machine, $shared))->{status}, 0, "$name, $machine");
	my $r = $virt->domain('attach', $name, '--run', $run, @how);
	is($r->{status}, 0, 'attached') or diag($r->{err});
	like($r->{out}, qr/^$name: attached to the definition, path $path,/m, "path $path");
	is(scalar(() = $r->{out} =~ /^QEMU ends if the guest is reset while/mg), $path eq 'dax' ? 1 : 0, 'and what is wrong with path dax');
	ok(wait_until(10, sub { -S "$run/vmcli/$id/share.sock" }), 'its socket');
	$r = $virt->virsh('start', $name);
	is($r->{status}, 0, 'started') or diag($r->{err}, $virt->log, $d->log);
	ok((grep { $_ eq "DOMAIN $name running $path" } $watch->until(qr/^DOMAIN $name running/)), 'the watcher says so');
	return;
}

sub computed {
	my ($name, $path) = @_;
	ok(wait_until(120, sub { slurp(tmp("$name.console")) =~ /^DONE/m }), "$name comes to the end") or diag(slurp(tmp("$name.console")));
	like(slurp(tmp("$name.console")), qr/path $path\b/, "the call inside goes by $path") or diag($d->log);
	like(slurp(tmp("$name.console")), qr/^1551118753287382280224243016469303211063259720016986112000000000000\r?$/m, 'and has the answer');
	return;
}

# Two at a time, with this machine's libvirt and QEMU
my $uuid2 = $uuid =~ s/^1/2/r;
host('libvirt-qemu', 'own');
started('vm-ivshmem', $uuid, 'pc', 'ivshmem', '--path', 'ivshmem');
started('vm-copy', $uuid2, 'q35', 'copy', '--path', 'copy');
my ($holder) = grep { $_->[1] eq 'vfun-hold' } descendants();
my %status = slurp("/proc/$holder->[0]/status") =~ /^(\w+):[ \t]*(.*?)[ \t]*$/mg;
is_deeply([@status{qw(Uid Gid Groups CapBnd CapPrm NoNewPrivs Seccomp)}], [("64055\t64055\t64055\t64055") x 2, '', ('0' x 16) x 2, 1, 2], 'who holds the memory is QEMU\'s user, and confined');
is_deeply([map { readlink } glob "/proc/$holder->[0]/fd/[3-9]*"], ['/memfd:vfun-ivshmem (deleted)'], 'and has nothing else');
is_deeply([map { readlink } glob "/proc/$holder->[0]/fd/[0-2]"], [('/dev/null') x 3], 'nor the log');
is(run(['setpriv', '--reuid', $_, '--regid', $_, '--clear-groups', 'head', '-c', 8, "$run/vmcli/$uuid/ivshmem"])->{out}, $_ == 64055 ? 'vfunBar1' : '', "user $_ and the memory") for 64055, 65534;
computed('vm-ivshmem', 'ivshmem');
computed('vm-copy', 'copy');

sub words { return slurp("/proc/$_[0]/cmdline") =~ tr/\0/ /r; }

# QEMU doesn't answer; whoever attaches is killed. The link in /dev/shm goes all the same.
sub killed_while_plugging {
	my ($name, $id) = @_;
	my ($qemu) = grep { words($_->[0]) =~ /qemu.*guest=$name\b/ } descendants();
	kill 'STOP', $qemu->[0];
	my $job = $virt->domain_job('attach', $name, '--live', '--run', $run);
	ok(wait_until(20, sub { -l "/dev/shm/vfun-$id" }), 'a link in /dev/shm while it is plugged') or diag(slurp($job->{err}));
	my @attach = sort { $a <=> $b } map { $_->[0] } grep { words($_->[0]) =~ /^vfun-half domain\b/ } descendants();
	kill 'KILL', @attach[0 .. $#attach - 1];
	kill 'CONT', $qemu->[0];
	finish($job, 20);
	ok(wait_until(20, sub { !-l "/dev/shm/vfun-$id" && !-e "/dev/shm/vfun-$id" }), 'gone soon after who made it, who is killed');
	is($virt->domain('detach', $name, '--live')->{status}, 0, 'what he left half done is taken away') or diag($virt->log);
}

# Plugged: into an i440fx machine, and what fits into a q35 machine's root port
my %plug = ('vm-plug' => [$uuid =~ s/^1/3/r, 'pc'], 'vm-port' => [$uuid =~ s/^1/4/r, 'q35', '--memory', '2M']);
for my $name (sort keys %plug) {
	is($virt->virsh('create', definition($name, @{ $plug{$name} }[0, 1], $shared))->{status}, 0, "$name runs");
	ok(wait_until(60, sub { slurp(tmp("$name.console")) =~ /^READY/m }), 'its guest is up');
	my ($id, undef, @how) = @{ $plug{$name} };
	killed_while_plugging($name, $id) if $name eq 'vm-plug';
	my $r = $virt->domain('attach', $name, '--live', '--run', $run, @how);
	is($r->{status}, 0, 'attached live') or diag($r->{err}, $virt->log, $d->log);
	like($r->{out}, qr/^$name: attached to the running domain, path ivshmem/m, 'by path ivshmem');
	ok(!-l "/dev/shm/vfun-$id", 'nothing stays in /dev/shm');
	computed($name, 'ivshmem');
	$r = $virt->domain('detach', $name, '--live');
	is($r->{status}, 0, 'detached live') or diag($r->{err});
	unlike($virt->virsh('dumpxml', $name)->{out}, qr/vfun/, 'nothing stays');
	$virt->virsh('destroy', $name);
}
is(readlink("$run/vmcli/$uuid/ivshmem"), "/proc/$holder->[0]/fd/3", 'its memory has a path');
kill 'KILL', $holder->[0];
ok(wait_until(5, sub { my ($h) = grep { $_->[1] eq 'vfun-hold' } descendants(); $h && $h->[0] != $holder->[0] && readlink("$run/vmcli/$uuid/ivshmem") eq "/proc/$h->[0]/fd/3" }), 'who holds it is killed: another does');
is($virt->virsh('domstate', 'vm-ivshmem')->{out} =~ s/\s//gr, 'running', 'the domain does not notice');
for my $name ('vm-ivshmem', 'vm-copy') {
	is($virt->virsh('destroy', $name)->{status}, 0, "$name destroyed");
	$virt->virsh('undefine', $name);
}
ok(wait_until(10, sub { !glob "$run/vmcli/*" }), 'nothing of them is left');
is_deeply([still(qr/^vfun-hold$/)], [], 'nor who held the memory');

# A transient domain, and one whose hook finds no vfund
is($virt->virsh('create', '--paused', definition('short', $uuid, 'q35', $shared))->{status}, 0, 'a transient domain');
refused($virt->domain('attach', 'short', '--run', $run), 3, qr/it is transient/, 'its definition');
is($virt->domain('attach', 'short', '--run', $run, '--live')->{status}, 0, 'live');
ok((grep { /^DOMAIN short paused copy/ } $watch->until(qr/^DOMAIN short/)), 'the watcher says so');
my $there = "<qemu:arg value='socket,id=vfun,path=$run/vmcli/$uuid/share.sock'/>";
is(run(['sh', $hook, 'web', 'prepare', 'begin', '-'], stdin => "<domain>\n$there\n</domain>")->{status}, 0, 'the hook: vfund is there');
$virt->virsh('destroy', 'short');
is(($watch->until(qr/^GONE/))[-1], "GONE $uuid", 'and that it is gone');
is(run(['sh', $hook, 'web', 'prepare', 'begin', '-'], stdin => '<domain/>')->{status}, 0, 'the hook: none is wanted');
my $r = run(['sh', $hook, 'web', 'prepare', 'begin', '-'], stdin => $there =~ s/1111/2222/r);
is($r->{status}, 1, 'the hook: none is there');
like($r->{err}, qr/^vfun: web has a share of vfund, but nobody listens at .*: start vfund/, 'a sentence');
no_host();

# With those of the tree
host('libvirt-qemu');
started('vm-dax', $uuid, 'q35', 'dax');
computed('vm-dax', 'dax');
$virt->virsh('suspend', 'vm-dax');
is(($watch->until(qr/paused/))[-1], 'DOMAIN vm-dax paused dax', 'paused');
$virt->virsh('resume', 'vm-dax');
is(($watch->until(qr/running/))[-1], 'DOMAIN vm-dax running dax', 'resumed');
refused($virt->domain('detach', 'vm-dax', '--live'), 6, qr/can't be taken from a running domain/, 'what QEMU was started with');
is($virt->virsh('destroy', 'vm-dax')->{status}, 0, 'destroyed');
is(($watch->until(qr/shut off/))[-1], 'DOMAIN vm-dax shut off dax', 'the watcher says so');
$virt->virsh('undefine', 'vm-dax');
$watch->until(qr/^GONE/);

# Live
is($virt->virsh('define', definition('live', $uuid, 'q35', $shared))->{status}, 0, 'a domain without');
is($virt->virsh('start', 'live')->{status}, 0, 'started');
my $nowhere = $virt->domain_job('attach', 'live', '--live', '--run', tmp('nowhere'));    # takes ten seconds
ok(wait_until(60, sub { slurp(tmp('live.console')) =~ /^READY/m }), 'its guest is up');
refused(finish($nowhere), 4, qr/nobody made .*share\.sock within/, 'without a vfund');
unlike($virt->virsh('dumpxml', 'live')->{out}, qr/vfun:domain/, 'nothing stays');
refused($virt->domain('attach', 'live', '--live', '--run', $run, '--path', 'dax'), 6, qr/path dax can't be given to a running domain/, 'dax, live');
refused($virt->domain('attach', 'live', '--live', '--run', $run, '--path', 'ivshmem'), 6, qr/path ivshmem can be plugged into .* with --memory 2M/, 'ivshmem into a root port');
$r = $virt->domain('attach', 'live', '--live', '--run', $run);
is($r->{status}, 0, 'attached live') or diag($r->{err}, $virt->log);
like($r->{out}, qr/^live: attached to the running domain, path copy/m, 'by path copy');
ok(wait_until(60, sub { slurp(tmp('live.console')) =~ /^DONE/m }), 'its guest finds it') or diag(slurp(tmp('live.console')), $d->log);
like(slurp(tmp('live.console')), qr/^15511187532873822802\d+\r?$/m, 'and has the answer');
unlike(xml('live'), qr/vfun:domain/, 'its definition has nothing of it');
like($virt->domain('list')->{out}, qr/^live +$uuid +running +copy +-$/m, 'listed');
$r = $virt->domain('detach', 'live', '--live');
is($r->{status}, 0, 'detached live') or diag($r->{err});
unlike($virt->virsh('dumpxml', 'live')->{out}, qr/vfun/, 'nothing stays');
$virt->virsh('destroy', 'live');
$virt->virsh('undefine', 'live');
no_host();

# An ordinary user, with libvirt's session mode, which is what it chooses for him
my @user = (65534, 65534);
my $home = tmp('home');
mkdir $_ and chown @user, $_ for $home, "$home/libvirt";
spew("$home/libvirt/qemu.conf", qq(stdio_handler = "file"\n));    # else it starts a virtlogd
my %env = map { $_ => $home } qw(HOME XDG_RUNTIME_DIR XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_STATE_HOME);
my $as_user = sub { return run([in_tree(\@user, @_)], env => { %env, LIBVIRT_AUTOSTART => 0 }, timeout => 60) };
is($as_user->(vfun_here(), 'domain', 'list')->{status}, 9, 'an ordinary user without libvirtd');
my $session = start([in_tree(\@user, 'libvirtd')], env => \%env, log => tmp('session.log'));
ok(wait_until(30, sub { $as_user->('virsh', 'version')->{status} == 0 }), 'with one') or diag(slurp(tmp('session.log')));
$d = Vfun->new(conf => slurp('vfun.conf') . "\n[libvirt]\nconnect = qemu:///session\nfunctions = factorial\n", as => \@user, tree => 1);
{
	local @ENV{keys %env} = values %env;
	ok($d->up, 'and a vfund');
}
my $xml = definition('mine', $uuid, 'q35', '');
my $console = "$home/mine.console";
spew($xml, slurp($xml) =~ s{\Q@{[tmp('mine.console')]}}{$console}r);
is($as_user->('virsh', 'define', $xml)->{status}, 0, 'has a domain');
$r = $as_user->(vfun_here(), qw(domain attach mine --fix --run), $d->{run});
like($r->{out}, qr/^mine: attached to the definition, path dax.*\nQEMU ends if the guest is reset while/m, 'attached, and what is wrong with path dax') or diag($r->{err});
$r = $as_user->('virsh', 'start', 'mine');
is($r->{status}, 0, 'started') or diag($r->{err}, slurp(tmp('session.log')));
ok(wait_until(120, sub { slurp($console) =~ /^DONE/m }), 'it comes to the end');
like(slurp($console), qr/path dax\b.*^15511187532873822802\d+\r?$/ms, 'and has the answer');
$as_user->('virsh', 'destroy', 'mine');
$r = $as_user->(vfun_here(), qw(domain detach mine));
is($r->{status}, 0, 'detached') or diag($r->{err});
kill 'TERM', $session->{pid};
finish($session, 20);
is_deeply([$d->down], [], 'nothing is left');
is_deeply([still(qr/virt|qemu/)], [], 'nor of libvirt');
done_testing();
