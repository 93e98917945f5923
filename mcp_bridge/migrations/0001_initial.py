import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('accounts', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='ChangeCounter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('epoch', models.CharField(blank=True, max_length=32)),
                ('number', models.BigIntegerField(default=0)),
            ],
            options={
                'verbose_name': 'change counter',
            },
        ),
        migrations.CreateModel(
            name='LoggedChange',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.BigIntegerField(help_text='Numbers follow the order of commits.', null=True, unique=True)),
                ('kind', models.CharField(help_text='See mcp_bridge/cache/watched_tables.py.', max_length=16)),
                ('key', models.CharField(help_text="The user or token that the change affects. Empty if it "
            "affects all.", max_length=255)),
            ],
            options={
                'verbose_name': 'change',
            },
        ),
        migrations.CreateModel(
            name='Primitive',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('tool', 'tool'), ('resource', 'resource'), ('resource_template', 'resource template'), ('prompt', 'prompt')], max_length=20, verbose_name='kind')),
                ('name', models.CharField(help_text="The name of a tool or prompt, or the URI of a resource.", max_length=255, verbose_name='name')),
                ('title', models.CharField(blank=True, max_length=255, verbose_name='title')),
                ('description', models.TextField(blank=True, verbose_name='description')),
                ('enabled', models.BooleanField(default=True, help_text="Disabled items are hidden from everyone.", verbose_name='enabled')),
                ('sensitive', models.BooleanField(default=False, help_text="Clients must request its scope explicitly. The general "
            "mcp scope is not enough.", verbose_name='sensitive')),
                ('definition', models.CharField(editable=False, max_length=64)),
                ('changed_at', models.DateTimeField(blank=True, editable=False, help_text="Its definition changed in the code and has not been "
            "accepted yet.", null=True, verbose_name='definition changed')),
                ('first_seen_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='first seen at')),
                ('last_seen_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='last seen at')),
                ('vanished_at', models.DateTimeField(blank=True, editable=False, null=True, verbose_name="removed at")),
                ('enabled_before', models.BooleanField(default=True, editable=False)),
                ('required_scopes', models.ManyToManyField(blank=True, help_text="Any one of these scopes is enough. Without a scope, no "
            "one can use it.", related_name='primitives', to='accounts.scope', verbose_name='required scopes')),
            ],
            options={
                'verbose_name': 'tool, resource or prompt',
                'verbose_name_plural': 'tools, resources and prompts',
                'ordering': ('kind', 'name'),
                'constraints': [models.UniqueConstraint(fields=('kind', 'name'), name='one_row_per_primitive')],
            },
        ),
    ]
