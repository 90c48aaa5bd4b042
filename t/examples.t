#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# examples.t - the functions of backends/examples and their guests' programs, on the host and in a guest; `vfun bench functions`
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Python;
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my @functions = qw(blur fft2 nearest);
ok(make('examples'), 'make examples') or BAIL_OUT('no examples');
mkdir tmp('functions');
run(['install', '-m', '755', "$BUILD/examples/$_", tmp('functions')]) for @functions;
for my $name (@functions) {
	my $r = run([tmp("functions/$name")]);
	is($r->{status}, 64, "$name, not started by vfund");
	like($r->{err}, qr/vfund starts it: see vfun-function\(7\)/, 'says so');
	cmp_ok(scalar(split /\n/, slurp("backends/examples/$name.c")), '<', 150, 'and is short');
}

my $conf = slurp('vfun.conf') =~ s/^functions = .*/$& @functions/mgr;
my $d = Vfun->new(conf => $conf . join '', map { "[function $_]\nbackend = program\nprogram = " . tmp("functions/$_") . "\narena = 64M\n" } @functions);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, PYTHONPATH => 'proto', PYTHONDONTWRITEBYTECODE => 1);

# A white square on black, 60 x 40. As blur does it: rows first.
my ($w, $h, $radius) = (60, 40, 3);
sub pixel { my ($x, $y) = @_; return $x >= 20 && $x < 40 && $y >= 10 && $y < 30 ? 255 : 0; }
sub row_mean {
	my ($x, $y) = @_;
	my @in = grep { $_ >= 0 && $_ < $w } $x - $radius .. $x + $radius;
	my $sum = 0;
	$sum += pixel($_, $y) for @in;
	return int($sum / @in);
}
sub mean {
	my ($x, $y) = @_;
	my @in = grep { $_ >= 0 && $_ < $h } $y - $radius .. $y + $radius;
	my $sum = 0;
	$sum += row_mean($x, $_) for @in;
	return int($sum / @in);
}
sub picture {
	my ($value) = @_;
	return "P6\n$w $h\n255\n" . join '', map { my $y = $_; map { chr($value->($_, $y)) x 3 } 0 .. $w - 1 } 0 .. $h - 1;
}
spew(tmp('picture'), picture(\&pixel));
my $blurred = picture(\&mean);
spew(tmp('table'), "0 0 0\n1 0 0\n0 1 0\n0 0 1\n");
spew(tmp('queries'), "0.9 0.2 0\n0.1 0.1 0.1\n0 0.3 0.6\n");
my $nearest = "1.0 0.0 0.0\n0.0 0.0 0.0\n0.0 0.0 1.0\n";
my @waves = qw(3 5 200 17 0 255);
my $peaks = "3 5\n200 17\n0 255\n";

my @ppm = ("$BUILD/examples/blur-ppm", $radius);
ok(run([@ppm], stdin => slurp(tmp('picture')), env => \%env)->{out} eq $blurred, 'on the host: blur-ppm');
is(run([host_python(), 'backends/examples/fft2-peak.py', @waves], env => \%env)->{out}, $peaks, 'on the host: fft2-peak.py');
is(run([host_python(), 'backends/examples/nearest-lines.py', tmp('table')], stdin => slurp(tmp('queries')), env => \%env)->{out}, $nearest,
	'on the host: nearest-lines.py');
my $r = run([$ppm[0], 99], stdin => slurp(tmp('picture')), env => \%env);
is($r->{status}, 1, 'a radius that is out of range');
is($r->{err}, "blur-ppm: radius: 99 is not 1..64\n", 'is refused in a sentence');

# In a guest
my $in = sub {
	my ($file, @command) = @_;
	return finish($d->guest('tree', \@command, '--path', 'dax', '--stdin', tmp($file), '--add', "$BUILD/examples/blur-ppm", '--add', tmp('table'),
		guest_python(), map { ('--add', $_) } 'proto/vfun.py', glob 'backends/examples/*.py'), 120);
};
ok($in->('picture', 'blur-ppm', $radius)->{out} eq $blurred, 'in a guest: blur-ppm');
is($in->('table', 'python3', '/fft2-peak.py', @waves)->{out}, $peaks, 'in a guest: fft2-peak.py');
is($in->('queries', 'python3', '/nearest-lines.py', '/table')->{out}, $nearest, 'in a guest: nearest-lines.py');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# The comparison, with a vfund of its own
$VFUN = "$BUILD/guest/vfun" if $SANITIZE;    # it starts guests with itself, where there is no address sanitizer
my @bench = ('bench', 'functions', '--programs', tmp('functions'));
$r = run([$VFUN, @bench, '--json', '--qemu', "$TREE/qemu", '--kernel', "$TREE/kernel/vmlinuz"], timeout => 300);
is($r->{status}, 0, 'vfun bench functions') or diag($r->{err});
my $rows = eval { decode_json($r->{out})->{rows} } // [];
is(join(' ', map { "$_->{where} $_->{path} $_->{function}" } @$rows), join(' ', map { "host host $_" } @functions) . ' ' . join(' ', map { "guest dax $_" } @functions),
	'each function, on the host and in a guest');
is(scalar(grep { $_->{here_ms} > 0 && $_->{vfun_ms} > 0 && $_->{times} > 0 && $_->{bytes} > 10_000 } @$rows), 6, 'its times');
is(join(' ', map { $_->{results} } @$rows), join(' ', ('same') x 6), 'results agree');
$r = vfun('bench', 'functions');
is($r->{status}, 2, 'without programs');
like($r->{err}, qr/functions: where are they\? --programs DIR/, 'it says what it needs');
run(['cp', '/bin/false', tmp('functions/blur')]);
$r = run([$VFUN, @bench, '--no-guest']);
isnt($r->{status}, 0, 'what is no function');
is($r->{out}, '', 'gives no figures');
done_testing();
