# SPDX-License-Identifier: MIT
#
# Python.pm - this machine's own Python for a guest: the interpreter, its libraries, and the standard library as one archive
#
#	my @options = guest_python();	# of `vfun vm`; there, it is /bin/python3
package Python;

use strict;
use warnings;

use Exporter qw(import);
use Vfun;

our @EXPORT = qw(guest_python host_python);

sub host_python { return '/usr/bin/python3'; }

# What an interpreter says that has its own standard library only.
sub say_of {
	my ($code) = @_;
	my $r = run([host_python(), '-I', '-c', $code]);
	die "python3: $r->{err}" if $r->{status};
	return split /\n/, $r->{out};
}

sub guest_python {
	my ($binary, $version, $mmap) = say_of('import os, sys, mmap; print(os.path.realpath(sys.executable)); print("%d.%d" % sys.version_info[:2]); '
		. 'print(getattr(mmap, "__file__", ""))');
	my $zip = tmp('python.zip');
	say_of(<<"END") if !-e $zip;
import os, sysconfig, zipfile
lib = sysconfig.get_path("stdlib")
with zipfile.ZipFile("$zip", "w", zipfile.ZIP_DEFLATED) as z:
    for folder, folders, files in os.walk(lib):
        folders[:] = [f for f in folders if f not in ("__pycache__", "test", "idlelib", "tkinter", "lib2to3", "ensurepip", "dist-packages") and not f.startswith("config-")]
        for name in files:
            if name.endswith(".py"):
                z.write(os.path.join(folder, name), os.path.relpath(os.path.join(folder, name), lib))
END
	my %file = ($binary => '/bin/python3', $zip => '/lib/python.zip');
	$file{$mmap} = '/lib/python/' . $mmap =~ s{.*/}{}r if $mmap;
	for my $needs ($binary, $mmap ? $mmap : ()) {
		$file{$_} = $_ for run(['ldd', $needs])->{out} =~ m{(/\S+) \(0x}g;
	}
	return ((map { ('--add', "$_:$file{$_}") } sort keys %file), '--env', 'PYTHONHOME=/', '--env', 'PYTHONPATH=/lib/python.zip:/lib/python');
}

1;
