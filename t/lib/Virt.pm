# SPDX-License-Identifier: MIT
#
# Virt.pm - a libvirtd of one's own, from the Debian 13 tree or this machine's, for tests with real domains
#
#	my $virt = Virt->new('libvirt-qemu', 'own'); $virt->up; $virt->virsh('list'); $virt->domain('attach', 'web'); ...; $virt->down;
#	my $watch = Virt->watch($uri); $watch->next; $watch->end;
#
# libvirtd has mounts of its own: what it writes, and its configuration, are folders in memory that go with it. Its
# sockets lie in the test's temporary folder, which is what others reach it by. It runs as root, QEMU as root or as the
# user that is given, and it touches neither cgroups nor labels. A shell starts it again when it dies. QEMU outlives it, and is below the test
# process as all the rest is.
package Virt;

use strict;
use warnings;
use lib 't/lib';
use Fcntl qw(F_SETFD);
use POSIX ();
use Socket;
use Vfun;

my $n = 0;

# The driver's name and options where libvirtd listens in this folder.
sub uri { return "qemu+unix:///system?socket=$_[0]{dir}/libvirt-sock"; }

sub new {
	my ($class, $user, $which) = @_;
	$user //= 'root';
	my $own = $user eq 'root' ? 0 : 1;
	my $dir = tmp('virt' . ++$n);
	mkdir $dir or die "$dir: $!";
	spew("$dir/libvirtd.conf", qq(listen_tls = 0\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_dir = "$dir"\nlog_outputs = "3:stderr"\n));
	spew("$dir/qemu.conf", qq(user = "$user"\ngroup = "$user"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\n)
		. qq(stdio_handler = "file"\nremember_owner = 0\ndynamic_ownership = $own\n));
	spew("$dir/dbus.conf", <<'END');
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
END
	spew("$dir/run", <<"END");
set -e
for m in /run /var/lib /var/log /var/cache /etc/libvirt; do
	mount -t tmpfs none \$m
done
cp $dir/qemu.conf /etc/libvirt
# Debian 12's QEMU driver doesn't start without this user, which comes with another package.
grep -q ^libvirt-qemu: /etc/passwd || {
	(cat /etc/passwd; echo libvirt-qemu:x:64055:64055::/:/bin/false) >$dir/passwd
	(cat /etc/group; echo libvirt-qemu:x:64055:) >$dir/group
	mount --bind $dir/passwd /etc/passwd
	mount --bind $dir/group /etc/group
}
# Where root has /dev/kvm and QEMU's user has not, libvirtd asks QEMU for its capabilities again and again.
if [ -e /dev/kvm ]; then
	mknod -m 666 $dir/kvm c 10 232
	mount --bind $dir/kvm /dev/kvm
fi
# The bus starts nothing: whom it is starting when it ends would outlive it for a moment.
if [ -e $dir/polkit ]; then
	mkdir /run/dbus
	dbus-daemon --config-file $dir/dbus.conf --nofork --nopidfile &
	pids=\$!
	/usr/lib/polkit-1/polkitd --no-debug &
	pids="\$pids \$!"
	trap 'kill \$pids; wait' EXIT
fi
while [ ! -e $dir/stop ]; do
	[ -e $dir/off ] || libvirtd --config $dir/libvirtd.conf || true
	sleep 0.2
	rm -f /run/libvirt/qemu/autostarted
done
END
	return bless { dir => $dir, log => "$dir/log", own => ($which // '') eq 'own' }, $class;
}

# Where its programs run.
sub in {
	my ($self, @argv) = @_;
	return $self->{own} ? ('unshare', '-m', '--propagation', 'private', @argv) : in_tree(undef, @argv);
}

# Lines for libvirtd.conf, which count. polkit: 1: one is to run there.
sub configure {
	my ($self, $lines, $polkit) = @_;
	spew("$self->{dir}/libvirtd.conf", $lines . slurp("$self->{dir}/libvirtd.conf"));
	spew("$self->{dir}/polkit", '') if $polkit;
	return $self;
}

sub up {
	my ($self) = @_;
	$self->{job} = start([$self->in('sh', "$self->{dir}/run")], log => $self->{log});
	return wait_until(30, sub { $self->virsh('version')->{status} == 0 });
}

# As if the host were started again: no libvirtd, which then starts what is autostarted.
sub off {
	my ($self) = @_;
	spew("$self->{dir}/off", '');
	kill 'TERM', $self->pid;
	return wait_until(20, sub { !$self->pid });
}

sub on {
	my ($self) = @_;
	unlink "$self->{dir}/off";
	return wait_until(30, sub { $self->virsh('version')->{status} == 0 });
}

# libvirtd's pid.
sub pid {
	my ($self) = @_;
	my ($p) = grep { $_->[1] eq 'libvirtd' } descendants($self->{job}{pid});
	return $p ? $p->[0] : 0;
}

sub log { return slurp($_[0]{log}); }

sub virsh {
	my ($self, @args) = @_;
	return run([$self->in('virsh', '-q', '-c', $self->uri, @args)], timeout => 60);
}

# `vfun domain`, as a job and waited for
sub domain_job {
	my ($self, $command, @args) = @_;
	return start([$self->in($self->{own} ? $VFUN : vfun_here(), 'domain', $command, '--connect', $self->uri, @args)]);
}

sub domain {
	my ($self, @args) = @_;
	return finish($self->domain_job(@args), 60);
}

# Domains end first. Returns what is left.
sub down {
	my ($self) = @_;
	$self->virsh('destroy', $_) for split ' ', $self->virsh('list', '--name')->{out};
	spew("$self->{dir}/stop", '');
	kill 'TERM', $self->pid || $self->{job}{pid};
	finish($self->{job}, 20);
	return still(qr/libvirt|qemu|dbus|polkit/);
}

# Folders and files of an initramfs, name => content, undef for a folder; written to a file.
sub initramfs {
	my ($path, %content) = @_;
	my ($archive, $ino) = ('', 1);
	my $entry = sub {
		my ($name, $mode, $data) = @_;
		my $head = '070701' . join '', map { sprintf '%08X', $_ } $ino++, $mode, 0, 0, 1, 0, length $data, 0, 0, 0, 0, 1 + length $name, 0;
		$head .= "$name\0";
		$archive .= $_ . "\0" x (-length($_) % 4) for $head, $data;
	};
	$entry->($_, defined $content{$_} ? 0100755 : 040755, $content{$_} // '') for sort keys %content;
	$entry->('TRAILER!!!', 0, '');
	return spew($path, $archive);
}

# The watcher, as vfund starts it.
sub watch {
	my ($class, $uri, $own) = @_;
	my $half = tmp('half');
	run(['cp', "$BUILD/half", $half]) if !-e $half;
	socketpair(my $mine, my $its, AF_UNIX, SOCK_SEQPACKET, 0) or die "socketpair: $!";
	my $log = tmp('watch' . ++$n);
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		POSIX::dup2(fileno($its), 3);
		fcntl(IO::Handle->new_from_fd(3, 'r'), F_SETFD, 0) if fileno($its) == 3;
		open(STDERR, '>>', $log);
		exec($own ? () : in_tree(undef), $half, 'libvirt-watch', $uri) or POSIX::_exit(127);
	}
	close $its;
	return bless { pid => $pid, socket => $mine, log => $log }, 'Virt::Watch';
}

package Virt::Watch;

use strict;
use warnings;
use Vfun;

my @kinds = qw(? BEGIN DOMAIN END GONE LOST);
my @states = ('shut off', 'running', 'paused', 'crashed');
my @paths = qw(auto dax ivshmem copy);

# The next message within so many seconds, undef: none; 'EOF' at the end.
sub next {
	my ($self, $seconds) = @_;
	# libvirtd waits for QEMUs that it has killed to be collected, which falls to this process.
	return undef if !wait_until($seconds // 20, sub {
		my $ready = '';
		vec($ready, fileno($self->{socket}), 1) = 1;
		return select($ready, undef, undef, 0);
	});
	defined recv($self->{socket}, my $bytes, 4096, 0) or die "recv: $!";
	return { kind => 'EOF' } if !length $bytes;
	my %m = (size => length $bytes);
	@m{qw(kind state path instances memory ivshmem uid gid uuid name functions text label file)} = unpack 'V4 Q2 V2 Z40 Z64 Z512 Z256 Z256 Z256', $bytes;
	$m{kind} = $kinds[$m{kind}];
	$m{state} = $states[$m{state}];
	$m{path} = $paths[$m{path}];
	return \%m;
}

# The messages up to the first of this kind (and state), in short: "BEGIN", "DOMAIN web running dax", "GONE 1111...".
sub until {
	my ($self, $want, $seconds) = @_;
	my @short;
	while (my $m = $self->next($seconds)) {
		push @short, $m->{kind} eq 'DOMAIN' ? "DOMAIN $m->{name} $m->{state} $m->{path}" : $m->{kind} eq 'GONE' ? "GONE $m->{uuid}" : $m->{kind};
		$self->{last} = $m;
		return @short if $short[-1] =~ $want || $m->{kind} eq 'EOF';
	}
	return (@short, 'nothing more');
}

1;
