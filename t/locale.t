#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# locale.t - numbers don't depend on the locale: a program that sets its own, in which 1.5 is 1,5 and more bytes are letters
# than in ASCII, as a function and as a client; and vfun itself, which never sets one
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Python;
use Vfun;

requires('root', 'locales');

mkdir tmp('locale');
run(['localedef', '-i', 'de_DE', '-f', 'ISO-8859-1', tmp('locale/de_DE')]);
ok(-s tmp('locale/de_DE/LC_NUMERIC'), 'localedef makes a locale') or BAIL_OUT('no locale');
my %german = (LOCPATH => tmp('locale'), LC_ALL => 'de_DE');
is(run(['printf', '%.1f', '1,5'], env => \%german)->{out}, '1,5', 'with a comma');

my $half = program('half', '-DHALF_LOCPATH="' . tmp('locale') . '"');
my $signature = 'x f64 -1.5..1.5 default 0.5 -> y f64[1]';
is(run([$half, '--describe'])->{out} =~ s/\n.*//sr, $signature, 'a program that sets its locale says what it is');

my $d = Vfun->new(conf => "[function half]\nbackend = program\nprogram = $half\nfiles = " . tmp('locale') . "\n[host]\nfunctions = half\n");
ok($d->up, 'vfund takes it as a function') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, PYTHONPATH => 'proto', PYTHONDONTWRITEBYTECODE => 1);

for my $env (\%env, { %env, %german }) {
	my $where = $env == \%env ? '' : ', called in a German shell';
	my @x = (-1.5, -0.25, 0.001, 1.5);
	is(join(' ', map { run([$VFUN, 'call', 'half', $_], env => $env)->{out} =~ s/\n//r } @x), '[-0.75] [-0.125] [0.0005] [0.75]', "it computes$where");
	like(run([$VFUN, 'call', '--json', '--timeout', '9.5', 'half', '0.5'], env => $env)->{out},
		qr/^\{"function":"half","result":\[0\.25\],.*"times_us":\{"negotiation":\d+\.\d,/, "as JSON$where");
	like(run([$VFUN, 'call', 'half', '1.75'], env => $env)->{err}, qr/: x: 1\.75 is not -1\.5\.\.1\.5$/, "out of its range$where");
	like(run([$VFUN, 'list', '--run', $d->{run}], env => $env)->{out}, qr/\Q$signature\E/, "in the list$where");
}

# By its own check, in its own locale; and a client that has set it too.
spew(tmp('half.py'), <<'END');
import locale
import vfun
locale.setlocale(locale.LC_ALL, "de_DE")
assert locale.format_string("%.1f", 1.5) == "1,5"
with vfun.open("half") as f:
    print(list(f(-1.25)), list(f()), f.signature.text)
with vfun.open("half", signature="x f64 -> y f64[1]") as f:
    for x in 1.75, 0:
        try:
            f(x)
        except vfun.Error as e:
            print(e)
END
my $r = run([host_python(), tmp('half.py')], env => { %env, %german });
is($r->{out}, "[-0.625] [0.25] $signature\nhalf: x: 1.75 is not -1.5..1.5\nhalf: x: 0.5 or more\n", 'from Python') or diag($r->{err});

my @set = grep { slurp($_) =~ /\bsetlocale\s*\(/ } glob 'vfun.c {proto,backends,roles/*}/*.[ch] backends/*/*.[ch]';
is_deeply(\@set, [], 'vfun sets no locale');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
